"""Memory of the node controller with thousands of stage pods that have ended, and with whole ones.

    python -m benchmarks.controller_memory --pods 4000 13500

The real loop lists, watches and judges what a server on the loopback says: 1,000 nodes whose agents
say something new before each list, with a full ring of samples; and pods that are a recorded one with
other names and the longest report that a pre-check can leave. The peer does the same with nothing left
out, listed in one answer.
"""

import argparse
import json
import math
import multiprocessing
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.preflight.report import DEAR_CHECKS, Finding, Report
from components.preflight.termination import MAX_BYTES
from components.preflight.thresholds import load_thresholds
from tasks.cluster import api, watching
from tasks.nodes import controller
from tasks.nodes.names import SAMPLES_ANNOTATION
from tasks.nodes.policy import load_policy
from tasks.nodes.ring import AgentWord, word_json
from tasks.nodes.risk import Sample
from tests.unit.cluster.servers import Answer, Handler, Server, api_at, bookmark, says, streams
from tests.unit.nodes.builders import recorded

NAMESPACE = "team"
NUM_NODES = 1000
NUM_LISTS = 5
"""The first, and four anew: only then old and new ones are there at a time."""
WATCHED_S = 3.0
NAME, AT = "NAME-OF-IT", 1234567890
"""In the texts of a node and a pod: to be replaced."""


class Cluster(Server):
    """Lists in pages as they are asked for; a watch ends after WATCHED_S."""

    def __init__(self, num_pods: int) -> None:
        super().__init__()
        self.num_of = {"/api/v1/nodes": NUM_NODES, _pods_path(): num_pods}
        self.text_of = {"/api/v1/nodes": _node_text(), _pods_path(): _pod_text()}
        self.num_lists = 0

    def next_answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        if method != "GET":
            return says({})
        if "watch" in query:
            return _watch
        first = int(query.get("continue", 0))
        last = min(first + int(query["limit"]), self.num_of[path])
        is_whole = last == self.num_of[path]
        self.num_lists += is_whole and path == _pods_path()
        text = self.text_of[path].replace(str(AT), str(int(time.time())))
        items = ",".join(text.replace(NAME, str(i)) for i in range(first, last))
        meta = {"resourceVersion": "1", "continue": "" if is_whole else str(last)}
        return says(f'{{"metadata":{json.dumps(meta)},"items":[{items}]}}'.encode())


def _watch(to: Handler) -> None:
    time.sleep(WATCHED_S)
    streams(bookmark(2))(to)


def _pods_path() -> str:
    return api.namespace_of(api.PODS, NAMESPACE)


def _node_text() -> str:
    node, policy = recorded("node"), load_policy(controller.PATH)
    node["metadata"]["name"] = f"node-{NAME}"
    samples = tuple(
        Sample(AT - 1800 * i, 1000 + i, 0, 60.0 + i / 7, 89.0, i / 1000)
        for i in reversed(range(policy.agent.max_samples))
    )
    report = Report(
        f"node-{NAME}", AT, "h100-sxm", tuple(Finding(c, "ok") for c in DEAR_CHECKS), 1.0
    )
    said = {SAMPLES_ANNOTATION: word_json(AgentWord(report, None, samples))}
    node["metadata"]["annotations"] |= said
    return json.dumps(node, separators=(",", ":"))


def _pod_text() -> str:
    pod = recorded("pod")
    pod["metadata"] |= {"name": f"pod-{NAME}", "uid": f"uid-{NAME}"}
    pod["spec"]["nodeName"] = f"node-{NAME}"
    (checked,) = pod["status"]["initContainerStatuses"]
    report = checked["state"]["terminated"]["message"]
    checked["state"]["terminated"]["message"] = report.ljust(MAX_BYTES)
    return json.dumps(pod, separators=(",", ":"))


def control(port: int, is_whole: bool) -> None:
    """As `python -m tasks.nodes.controller`, a dry run, lists anew after each watch."""
    if is_whole:
        controller.kept_node = controller.kept_pod = watching.whole
        api.PAGE = 10**9
    policy = load_policy(controller.PATH)
    often = policy.controller.model_copy(update={"relist_s": 1.0})
    policy = policy.model_copy(update={"controller": often})
    hours = {name: sku.dear_hours for name, sku in load_thresholds(controller.SKUS).skus.items()}
    controller.run(api_at(port), policy, hours, False, "", NAMESPACE, threading.Event())


def measured(num_pods: int, is_whole: bool) -> tuple[int, int]:
    """MB that the controller holds after NUM_LISTS lists, and the most that it has held."""
    server = Cluster(num_pods)
    process = multiprocessing.get_context("spawn").Process(
        target=control, args=(server.port, is_whole), daemon=True
    )
    process.start()
    try:
        while server.num_lists < NUM_LISTS:
            if not process.is_alive():
                raise SystemExit("the controller has ended")
            time.sleep(0.1)
        time.sleep(WATCHED_S)  # it takes the last one in, and judges
        return memory_mb(process.pid or 0)
    finally:
        process.kill()
        server.stop()


def memory_mb(pid: int) -> tuple[int, int]:
    """Resident: now, and at most so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(re.findall(rf"{name}:\s+(\d+) kB", text)[0]) for name in ("VmRSS", "VmHWM"))
    return math.ceil(now * 1024 / 1e6), math.ceil(most * 1024 / 1e6)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, nargs="+", default=[0, 4000, 13500])
    arguments = parser.parse_args(argv)
    print(
        f"a pod is {len(_pod_text()) / 1e3:.1f} kB of JSON, a node {len(_node_text()) / 1e3:.1f} kB"
    )
    print(
        f"{'pods':>8} {'resident MB':>12} {'at most':>8} {'whole: MB':>10} {'at most':>8} {'ratio':>6}"
    )
    for many in arguments.pods:
        (now, most), (now_whole, most_whole) = (measured(many, whole) for whole in (False, True))
        ratio = f"{most_whole / most:.1f}"
        print(
            f"{many:8,} {now:12,} {most:8,} {now_whole:10,} {most_whole:8,} {ratio:>6}", flush=True
        )


if __name__ == "__main__":
    main()
