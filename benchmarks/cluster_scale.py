"""Queues, preemption, fair shares and the node controller with hundreds of Jobs on fake nodes.

    python -m k8s.devcluster up
    python -m k8s.devcluster exec python -m benchmarks.cluster_scale --nodes 100 --jobs 500

Parts: `queues` (the stage Jobs through Kueue), `plain` (the same Jobs without it: the peer), `watches`
(what a watch costs the API server), `nodes` (15 of 100 nodes turn sick). docs/scale.md reads the figures.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cluster_history as history
from benchmarks import cluster_load as load
from benchmarks.cluster_servers import Servers, metered, stored
from components.preflight.report import Finding, Report
from tasks.cluster import api, queue
from tasks.cluster.api import Api, Object, connect, namespace_of
from tasks.cluster.seen import finished
from tests.cluster import fake_nodes

PARTS = ("queues", "plain", "watches", "nodes")
FATAL = Finding("xid", "fail", "GPU 3: Xid 79, fallen off the bus", fatal=True, device=3, value=79)


class Counting(Api):
    """Notes the answers to its questions."""

    def __init__(self, other: Api) -> None:
        super().__init__(other._client)
        self.answers: list[Object] = []

    def get(self, path: str, **query: str) -> Object:
        self.answers.append(super().get(path, **query))
        return self.answers[-1]


@dataclass(frozen=True)
class Run:
    """What the Jobs of one fleet did."""

    versions: Sequence[history.Version]
    began_s: float
    """Unix."""
    created_in_s: float
    elapsed_s: float
    """From the first creation to the last end."""
    num_objects: int
    """Created: Jobs, and the gangs' Services."""
    servers: Servers
    listing_s: float
    listing_calls: int
    listing_bytes: int
    stored: dict[str, tuple[int, float]]
    """How many objects of each kind in etcd at the end, and their mean size in bytes."""


def through_queues(server: Api, name: str, jobs: Sequence[load.StageJob]) -> Run:
    """All Jobs on a fleet that exists, until the last has ended."""
    objects = [load.rendered(job, name, is_queued=True) for job in jobs]
    with history.recorded(server, name) as seen, metered() as servers:
        began_s = time.time()
        created_in_s = load.submit(server, objects)
        counting = Counting(server)
        asked_s = time.monotonic()
        rows = queue.rows(counting, name)
        listing_s = time.monotonic() - asked_s
        if not rows:
            raise RuntimeError("the queue's listing is empty though Jobs are in it")
        load.wait_for(lambda: seen.num_finished() == len(jobs), "all Jobs to end", 400.0)
        elapsed_s = time.time() - began_s
    answered = sum(len(json.dumps(one)) for one in counting.answers)
    return Run(
        seen.versions, began_s, created_in_s, elapsed_s, sum(map(len, objects)), servers,
        listing_s, len(counting.answers), answered, stored(name),
    )  # fmt: skip


def without_queues(server: Api, name: str, jobs: Sequence[load.StageJob]) -> Run:
    objects = [load.rendered(job, name, is_queued=False) for job in jobs]
    path = namespace_of(api.JOBS, name)

    def num_ended() -> int:
        time.sleep(1)  # the list costs the server something too
        return sum(bool(finished(one)) for one in server.get(path)["items"])

    with metered() as servers:
        began_s = time.monotonic()
        created_in_s = load.submit(server, objects)
        load.wait_for(lambda: num_ended() == len(jobs), "all Jobs to end", 400.0)
        elapsed_s = time.monotonic() - began_s
    return Run(
        (), began_s, created_in_s, elapsed_s, sum(map(len, objects)), servers, 0.0, 0, 0, stored(name)
    )  # fmt: skip


def watch_cost(
    server: Api, name: str, num_watches: int, num_changes: int
) -> list[tuple[str, float]]:
    """Processor milliseconds of the API server for each change of one Workload, by who watches."""
    (job,) = load.plan(1, 600)
    load.submit(server, [load.rendered(job, name, is_queued=True)])
    path = namespace_of(api.WORKLOADS, name)
    load.wait_for(lambda: server.get(path)["items"], "its Workload")
    (workload,) = server.get(path)["items"]
    target = f"{path}/{workload['metadata']['name']}"

    def change_all(label: str) -> float:
        with metered() as servers:
            for index in range(num_changes):
                note = {"headrace.dev/note": f"{label} {index}"}
                server.patch(target, {"metadata": {"annotations": note}})
            time.sleep(2)
        return servers.cpu_s["kube-apiserver"] * 1000 / num_changes

    found = [("nobody", change_all("nobody"))]
    selected = {"labelSelector": "kueue.x-k8s.io/job-uid=00000000-0000-0000-0000-000000000000"}
    for label, query in ((f"{num_watches} of it", {}), (f"{num_watches} of others", selected)):
        with ExitStack() as stack:
            version = str(server.get(path)["metadata"]["resourceVersion"])
            for _ in range(num_watches):
                stack.enter_context(_watching(path, query | {"resourceVersion": version}))
            time.sleep(3)
            found.append((label, change_all(label)))
    return found


@contextmanager
def _watching(path: str, query: dict[str, str]) -> Iterator[None]:
    """A connection of its own whose events are read and thrown away."""
    stopped = threading.Event()
    watch = connect().watch(path, **query)

    def read() -> None:
        for _ in watch:
            if stopped.is_set():
                return

    threading.Thread(target=read, daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def sick_nodes(server: Api, name: str, num_nodes: int) -> tuple[float, float, int, int]:
    """15 % of the nodes fail their pre-check; the breaker lets go 10 %.

    Seconds from the first and from the last report until all that may be are quarantined and the
    others held, and how many are each.
    """
    num_sick, num_allowed = num_nodes * 15 // 100, num_nodes // 10
    names = [f"{name}-{index:04d}" for index in range(num_nodes)]
    report = Report("node", time.time(), "h100-sxm", (FATAL,), 0.1)
    with (
        tempfile.TemporaryDirectory() as folder,
        fake_nodes.pool(server, name, Path(folder)) as pool,
    ):
        pool.create_nodes(names)
        with pool.controller(pool.policy(breaker={"max_fraction": 0.1}), "--apply"):
            load.wait_for(lambda: pool.states() == ["healthy"] * num_nodes, "all to be healthy")
            for index, node in enumerate(names[:num_sick]):
                pool.create_pod(f"p{index}", node)
            phases = namespace_of(api.PODS, name)
            load.wait_for(
                lambda: all(
                    one["status"].get("phase") == "Running" for one in server.get(phases)["items"]
                ),
                "the pods to run",
            )
            first_s = time.monotonic()
            for index in range(num_sick):
                pool.end_preflight(f"p{index}", 69, report)
            last_s = time.monotonic()

            def counts() -> tuple[int, int]:
                states = pool.states()
                return num_nodes - states.count("healthy") - states.count("suspect"), states.count(
                    "suspect"
                )

            load.wait_for(
                lambda: counts() == (num_allowed, num_sick - num_allowed), "the breaker to hold"
            )
            ended_s = time.monotonic()
            time.sleep(5)  # and it goes on to hold
            return ended_s - first_s, ended_s - last_s, *counts()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--duration-s", type=int, default=8, help="of a Job, in the mean")
    parser.add_argument("--watches", type=int, default=100)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    server, name = connect(), f"scale-{uuid.uuid4().hex[:6]}"
    jobs = load.plan(arguments.jobs, arguments.duration_s)
    runs: dict[str, Run] = {}
    ways: dict[str, Callable[..., Run]] = {"queues": through_queues, "plain": without_queues}
    for part, way in ways.items():
        if part in arguments.parts:
            with load.fleet(server, f"{name}-{part}", arguments.nodes):
                runs[part] = way(server, f"{name}-{part}", jobs)
            print_run(part, runs[part], f"{name}-{part}", arguments.nodes, len(jobs))
    if len(runs) == 2:
        queued, plain = runs["queues"], runs["plain"]
        work = [sum(one.servers.cpu_s.values()) for one in (queued, plain)]
        line("queues to plain: elapsed", f"{queued.elapsed_s / plain.elapsed_s:.2f} times")
        line("queues to plain: processor", f"{work[0] / work[1]:.2f} times")
    if "watches" in arguments.parts:
        with load.fleet(server, f"{name}-watches", 20):
            for label, cost_ms in watch_cost(server, f"{name}-watches", arguments.watches, 200):
                line(f"a change, watched by {label}", f"{cost_ms:.2f} ms of kube-apiserver")
    if "nodes" in arguments.parts:
        since_first_s, since_last_s, gone, held = sick_nodes(
            server, f"{name}-nodes", arguments.nodes
        )
        line("sick nodes: quarantined, held", f"{gone}, {held}")
        line("after the first, last report", f"{since_first_s:.1f} s, {since_last_s:.1f} s")


def print_run(part: str, run: Run, name: str, num_nodes: int, num_jobs: int) -> None:
    line(f"--- {part}", f"{num_jobs} Jobs, {num_nodes} nodes")
    line("creations", f"{run.num_objects / run.created_in_s:.1f} objects/s")
    line("all ended after", f"{run.elapsed_s:.1f} s, {num_jobs / run.elapsed_s:.1f} Jobs/s")
    for server, cpu_s in run.servers.cpu_s.items():
        line(server, f"{cpu_s:.1f} s of a core, peak {run.servers.peak_mib[server]} MiB")
    for kind, (many, num_bytes) in run.stored.items():
        line(f"etcd: {kind}", f"{many} of {num_bytes / 1024:.1f} KiB")
    if run.versions:
        print_queues(run, name, num_nodes, num_jobs)


def print_queues(run: Run, name: str, num_nodes: int, num_jobs: int) -> None:
    capacity = {f"{name}-{pool}": many for pool, many in load.nodes_of_pool(num_nodes).items()}
    full_s, admitted = history.first_fill(run.versions, num_nodes)
    line("admissions until full", f"{admitted} at {admitted / (full_s - run.began_s):.1f}/s")
    found = history.preemptions(run.versions, capacity)
    for reason in sorted({one.reason for one in found}):
        line(f"preemptions {reason}", str(sum(one.reason == reason for one in found)))
    line("preemptions that are wrong", "; ".join(history.wrong(found)) or "none")
    line("preemptions, another flavor free", str(len(history.passed_over(found))))
    line("flavors overbooked", ", ".join(history.overbooked(run.versions, capacity)) or "none")
    observed, lasted_s = history.shares(run.versions, num_nodes)
    for team, part in observed.items():
        due = load.share_due(num_nodes, team)
        line(f"share of {team}", f"{part:.3f}, due {due:.3f}, over {lasted_s:.0f} s")
    rack_of = {node: where[1] for node, where in load.racks(name, num_nodes).items()}
    split, together, preferring = history.split_gangs(run.versions, rack_of)
    line("gangs split that had to share", ", ".join(sorted(split)) or "none")
    line("gangs that prefer, in one rack", f"{together} of {preferring}")
    line(
        "queue listing",
        f"{run.listing_s:.2f} s, {run.listing_calls} calls, {run.listing_bytes / 2**20:.1f} MiB",
    )
    sizes = [one.num_bytes for one in run.versions]
    line(
        "Workload events of a Job",
        f"{len(sizes) / num_jobs:.1f} of {statistics.mean(sizes) / 1024:.1f} KiB",
    )


def line(what: str, value: str) -> None:
    print(f"{what:>32}  {value}", flush=True)


if __name__ == "__main__":
    main()
