"""`headrace queue`: the stages on the cluster, what waits and why."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from rich.console import Console
from rich.table import Table

from tasks.cluster import api
from tasks.cluster.api import Api, Object, connect, namespace_of, patiently, refusals_typed
from tasks.cluster.names import (
    FLOW_RUN,
    KEY_LABEL,
    PRIORITY_LABEL,
    QUEUE_LABEL,
    run_dir_of,
)
from tasks.cluster.seen import JOB_NAME_LABEL, Seen, finished, instant, workload_of
from tasks.cluster.situation import order_in_queue, situation
from tasks.config import Settings
from tasks.nodes.names import STAGE_LABEL

ANSWER_S = 10.0


@dataclass(frozen=True)
class Row:
    stage: str
    key: str
    queue: str
    priority: str
    state: str
    place: str
    """Among those of its queue that wait, such as `2 of 5`; empty if it does not wait."""
    nodes: str
    age_s: float
    why: str
    flow_run: str
    project: str
    """The folder of whoever launched it; empty if the Job does not say."""


def show(settings: Settings, *, as_json: bool, with_ended: bool) -> int:
    """Print the table. Raises UserError without access, InfraError if the server does not answer."""
    with refusals_typed():
        found = rows(connect(), settings.namespace, with_ended=with_ended)
    if as_json:
        print(json.dumps([asdict(row) for row in found], indent=1))
        return 0
    if not found:
        print(f"no stages in the namespace {settings.namespace}")
        return 0
    table = Table("stage", "state", "place", "queue", "priority", "node", "since", "why", box=None)
    is_shared = len({row.project for row in found}) > 1
    for row in found:
        whose = f"\n{row.project}" if is_shared else ""
        table.add_row(
            f"{row.stage} {row.key}{whose}", row.state, row.place, row.queue, row.priority,
            row.nodes, shown_age(row.age_s), row.why,
        )  # fmt: skip
    Console().print(table)
    return 0


def rows(server: Api, namespace: str, *, with_ended: bool = False) -> list[Row]:
    """One for each stage's Job, of all projects: those that run first, then the queue in its order."""
    jobs, pods, workloads = (
        patiently(partial(server.get, namespace_of(path, namespace)), ANSWER_S, _say)["items"]
        for path in (api.JOBS, api.PODS, api.WORKLOADS)
    )
    ours = [job for job in jobs if STAGE_LABEL in (job["metadata"].get("labels") or {})]
    found = [_row(job, pods, workloads) for job in ours if with_ended or not finished(job)]
    return sorted(found, key=lambda row: (bool(row.place), row.queue, _place(row), -row.age_s))


def _row(job: Object, pods: Sequence[Object], workloads: Sequence[Object]) -> Row:
    name, labels = job["metadata"]["name"], job["metadata"]["labels"]
    own = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(JOB_NAME_LABEL) == name]
    workload = workload_of(workloads, job)
    now = situation(Seen(job, own, workload, time.time()))
    place = ""
    if workload and now.state in ("queued", "preempted"):
        found = order_in_queue(workload, workloads)
        place = f"{found[0]} of {found[1]}" if found else ""
    return Row(
        labels[STAGE_LABEL], labels[KEY_LABEL], labels.get(QUEUE_LABEL, ""),
        labels.get(PRIORITY_LABEL, ""), now.state, place, ", ".join(now.nodes),
        round(time.time() - instant(job["metadata"]["creationTimestamp"]), 1), now.detail,
        (job["metadata"].get("annotations") or {}).get(FLOW_RUN, ""),
        run_dir_of(job).rpartition("/runs/")[0],
    )  # fmt: skip


def _say(line: str) -> None:
    """Beside what is asked for, which may be read as JSON."""
    print(line, file=sys.stderr)


def _place(row: Row) -> int:
    return int(row.place.split()[0]) if row.place else 0


def shown_age(age_s: float) -> str:
    """A duration for people, in its two largest units; by clocks that differ it may be below 0."""
    for unit, size_s, smaller, smaller_s in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if age_s >= size_s:
            return f"{int(age_s // size_s)} {unit} {int(age_s % size_s // smaller_s)} {smaller}"
    return f"{max(0, int(age_s))} s"
