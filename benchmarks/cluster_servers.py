"""What a measurement costs the cluster's servers, and what it leaves in etcd."""

import base64
import json
import statistics
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from k8s.devcluster import processes
from tasks.cluster.api import Object

SERVERS = ("kueue", "kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok")
ETCD = "http://127.0.0.1:2379/v3/kv/range"
KINDS = {
    "Job": "jobs", "Pod": "pods", "Workload": "kueue.x-k8s.io/workloads",
    "Service": "services/specs", "Event": "events",
}  # fmt: skip


@dataclass
class Servers:
    """Of each: processor seconds during the body, and its largest memory."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, int] = field(default_factory=dict)


@contextmanager
def metered() -> Iterator[Servers]:
    pids = {name: pid for name in SERVERS if (pid := processes.pid_of(name))}
    before = {name: processes.cpu_s(pid) for name, pid in pids.items()}
    seen, stopped = Servers(peak_mib=dict.fromkeys(pids, 0)), threading.Event()

    def look() -> None:
        while not stopped.wait(0.5):
            for name, pid in pids.items():
                seen.peak_mib[name] = max(seen.peak_mib[name], processes.memory_mib(pid))

    threading.Thread(target=look, daemon=True).start()
    try:
        yield seen
    finally:
        stopped.set()
        seen.cpu_s = {name: processes.cpu_s(pid) - before[name] for name, pid in pids.items()}


def stored(namespace: str) -> dict[str, tuple[int, float]]:
    """What etcd keeps of a namespace; the mean of up to 50 objects of a kind."""
    found = {}
    for kind, folder in KINDS.items():
        prefix = f"/registry/{folder}/{namespace}/".encode()
        bounds = {"key": prefix, "range_end": prefix[:-1] + b"0"}
        body: Object = {key: base64.b64encode(value).decode() for key, value in bounds.items()}
        request = urllib.request.Request(ETCD, json.dumps(body | {"limit": 50}).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            content = json.load(answer)
        sizes = [len(base64.b64decode(one["value"])) for one in content.get("kvs", [])]
        if sizes:
            found[kind] = int(content["count"]), statistics.mean(sizes)
    return found
