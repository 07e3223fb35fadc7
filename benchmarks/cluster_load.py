"""A fleet of fake nodes with the product's queues over it, and stage Jobs for it: for cluster_scale.

Everything has the fleet's name in its own, and is deleted with it.
"""

import json
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k8s.devcluster.build import program
from tasks.cluster import api
from tasks.cluster.api import Api, Object, Refused, namespace_of
from tasks.cluster.manifest import Attempt, Place, load_template, owned, render
from tasks.cluster.names import project_of
from tasks.config import load_resources

ROOT = Path(__file__).resolve().parents[1]
GPUS = 8
"""Of a node; every Job takes whole nodes."""
SIZE = {"cpu": "192", "memory": "2000Gi", "ephemeral-storage": "4000Gi", "nvidia.com/gpu": "8"}
QUOTA = {"cpu": 176, "memory": 1760, "ephemeral-storage": 3520, "nvidia.com/gpu": 8}
"""Of a node, an eighth left to the system as in k8s/overlays/gpu; memory and disk in GiB."""
POOLS = {"h100": 0.6, "h200": 0.4}
TEAMS = {"foundation": 2, "applied": 1}
"""With their weights."""
OWN = 0.2
"""Part of all nodes that is each team's own; the rest is the cohort's, for both by weight."""
RACK_NODES = 8
RACK = "topology.headrace.dev/rack"
LEVELS = ("topology.headrace.dev/block", RACK, "kubernetes.io/hostname")
FLEET_LABEL = "headrace.dev/fleet"
QUEUE_GROUP = "kueue.x-k8s.io/v1beta2"
NUM_THREADS = 8


@dataclass(frozen=True)
class StageJob:
    key: str
    team: str
    priority: str
    num_nodes: int
    duration_s: int
    must_share_rack: bool


def plan(num_jobs: int, duration_s: int, seed: int = 0) -> list[StageJob]:
    """The first four fifths of `background` and `research`, then `production`, which needs their room.

    A gang of `background` now and then requires one rack; the others prefer it, as the product asks.
    """
    made, draw = [], random.Random(seed)
    for index in range(num_jobs):
        is_late = index >= num_jobs * 0.8
        priority = "production" if is_late else draw.choice(("background", "research"))
        (num_nodes,) = draw.choices((1, 2, 4), (60, 25, 15))
        (team,) = draw.choices(tuple(TEAMS), (60, 40))
        took_s = draw.randint(max(1, duration_s // 2), duration_s * 3 // 2)
        required = priority == "background" and num_nodes > 1 and draw.random() < 0.3
        made.append(StageJob(f"{index:016x}", team, priority, num_nodes, took_s, required))
    return made


def rendered(job: StageJob, fleet: str, *, is_queued: bool) -> list[Object]:
    """The product's own Job, and a Service for a gang; a fake kubelet ends its pods.

    Not queued: without Kueue's labels, and sent to the fleet's nodes by the scheduler alone.
    """
    changes = {
        "num_nodes": job.num_nodes, "min_nodes": job.num_nodes, "gpus": GPUS, "cpu": 128.0,
        "memory_gib": 1024.0, "scratch_gib": 1000.0, "queue": job.team, "priority": job.priority,
        "grace_s": 1,
    }  # fmt: skip
    resources = load_resources(ROOT).of("pretrain").model_copy(update=changes)
    folder = Path("/headrace/project")
    place = Place(
        fleet,
        "dev.local/headrace:dev",
        "headrace",
        folder.parent,
        folder,
        1000,
        1000,
        False,
        project_of(folder, "headrace"),
    )
    attempt = Attempt("pretrain", job.key, 1, folder / "runs" / "pretrain" / job.key, "")
    made, *service = render(load_template(ROOT), attempt, resources, place)
    template = made["spec"]["template"]
    notes = template["metadata"].setdefault("annotations", {})
    notes["headrace.dev/fake-duration"] = f"{job.duration_s}s"
    if job.must_share_rack:
        notes["kueue.x-k8s.io/podset-required-topology"] = notes.pop(
            "kueue.x-k8s.io/podset-preferred-topology"
        )
    if not is_queued:
        labels = made["metadata"]["labels"]
        for label in [label for label in labels if label.startswith("kueue.x-k8s.io/")]:
            del labels[label]
        template["spec"]["nodeSelector"] = {FLEET_LABEL: fleet}
    return [made, *service]


def submit(server: Api, jobs: Sequence[Sequence[Object]]) -> float:
    """Create them as the launcher does, by several at once. Returns the seconds it took."""

    def create(objects: Sequence[Object]) -> None:
        job, *services = objects
        namespace = job["metadata"]["namespace"]
        made = server.create(namespace_of(api.JOBS, namespace), job)
        for service in services:
            server.create(namespace_of(api.SERVICES, namespace), owned(service, made))

    began = time.monotonic()
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        list(threads.map(create, jobs))
    return time.monotonic() - began


def racks(fleet: str, num_nodes: int) -> dict[str, tuple[str, str]]:
    """Pool and rack of each node."""
    num_first = round(num_nodes * POOLS["h100"])
    found = {}
    for index in range(num_nodes):
        pool, number = ("h100", index) if index < num_first else ("h200", index - num_first)
        found[f"{fleet}-{pool}-{number:04d}"] = pool, f"{fleet}-{pool}-r{number // RACK_NODES}"
    return found


def nodes_of_pool(num_nodes: int) -> dict[str, int]:
    first = round(num_nodes * POOLS["h100"])
    return {"h100": first, "h200": num_nodes - first}


@contextmanager
def fleet(server: Api, name: str, num_nodes: int) -> Iterator[None]:
    """Nodes that are ready, queues over them, and a namespace with what a stage's pod needs."""
    nodes = [_node(name, one, *where) for one, where in racks(name, num_nodes).items()]
    try:
        _kubectl("create", "-f", "-", objects=[*_place(name), *_queues(name, num_nodes)])
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            list(threads.map(lambda one: server.create(api.NODES, one), nodes))
        wait_for(lambda: _num_ready(server, name) == num_nodes, "the fake nodes")
        yield
    finally:
        delete(server, name)


def delete(server: Api, name: str) -> None:
    """The namespace first: who ends its pods are the fake kubelets of the nodes."""
    namespace = f"/api/v1/namespaces/{name}"
    # A namespace that ends waits for its pods, and those for their Job to let go of them.
    _kubectl("delete", "jobs", "--all", "--wait=false", "-n", name)
    server.delete(namespace)
    wait_for(lambda: not _exists(server, namespace), "the namespace to be gone", 150.0)
    kinds = "clusterqueues,cohorts,resourceflavors,topologies,persistentvolumes,nodes"
    _kubectl("delete", kinds, "-l", f"{FLEET_LABEL}={name}")


def wait_for(is_so: Any, what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.2)


def _node(fleet: str, name: str, pool: str, rack: str) -> Object:
    size = SIZE | {"pods": "110"}
    labels = {
        FLEET_LABEL: fleet, "kubernetes.io/hostname": name, "headrace.dev/gpu-pool": f"{fleet}-{pool}",
        "topology.headrace.dev/block": f"{fleet}-{pool}", RACK: rack,
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}
        },
        "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
        "status": {"capacity": size, "allocatable": size},
    }  # fmt: skip


def _place(fleet: str) -> list[Object]:
    label = {FLEET_LABEL: fleet}
    size = {"storage": "1Gi"}
    volume = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fleet, "labels": label}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stage", "namespace": fleet}},
        {
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": fleet, "labels": label},
            "spec": volume | {
                "capacity": size, "hostPath": {"path": "/nonexistent"},
                "claimRef": {"namespace": fleet, "name": "headrace"},
            },
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "headrace", "namespace": fleet},
            "spec": volume | {"resources": {"requests": size}, "volumeName": fleet},
        },
    ]  # fmt: skip


def _queues(fleet: str, num_nodes: int) -> list[Object]:
    """The product's ClusterQueues, preemption and all, with these weights and quotas."""
    made = [_kueue("Topology", fleet, fleet, {"levels": [{"nodeLabel": one} for one in LEVELS]})]
    for pool in POOLS:
        toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        spec = {
            "nodeLabels": {"headrace.dev/gpu-pool": f"{fleet}-{pool}"}, "topologyName": fleet,
            "tolerations": [toleration],
        }  # fmt: skip
        made.append(_kueue("ResourceFlavor", f"{fleet}-{pool}", fleet, spec))
    own = own_nodes(num_nodes)
    shared = {
        pool: many - own[pool] * len(TEAMS) for pool, many in nodes_of_pool(num_nodes).items()
    }
    made.append(_kueue("Cohort", fleet, fleet, {"resourceGroups": _quotas(fleet, shared)}))
    text = (ROOT / "k8s" / "queues" / "cluster-queues.yaml").read_text()
    for queue in yaml.safe_load_all(text):
        team = queue["metadata"]["name"]
        if queue["kind"] != "ClusterQueue" or team not in TEAMS:
            continue
        spec = queue["spec"] | {
            "cohortName": fleet, "fairSharing": {"weight": str(TEAMS[team])},
            "namespaceSelector": {"matchLabels": {FLEET_LABEL: fleet}},
            "resourceGroups": _quotas(fleet, own),
        }  # fmt: skip
        made.append(_kueue("ClusterQueue", f"{fleet}-{team}", fleet, spec))
        local = _kueue("LocalQueue", team, fleet, {"clusterQueue": f"{fleet}-{team}"})
        local["metadata"]["namespace"] = fleet
        made.append(local)
    return made


def own_nodes(num_nodes: int) -> dict[str, int]:
    """Of each team, in each pool."""
    return {pool: round(many * OWN) for pool, many in nodes_of_pool(num_nodes).items()}


def share_due(num_nodes: int, team: str) -> float:
    """Of all nodes, while all teams want more: its own, and its weight's part of the cohort's."""
    own = sum(own_nodes(num_nodes).values())
    shared = num_nodes - own * len(TEAMS)
    return (own + shared * TEAMS[team] / sum(TEAMS.values())) / num_nodes


def _quotas(fleet: str, num_nodes_of: Mapping[str, int]) -> list[Object]:
    flavors = []
    for pool, many in num_nodes_of.items():
        resources = [
            {"name": name, "nominalQuota": f"{size * many}{'Gi' if size > 1000 else ''}"}
            for name, size in QUOTA.items()
        ]
        flavors.append({"name": f"{fleet}-{pool}", "resources": resources})
    return [{"coveredResources": list(QUOTA), "flavors": flavors}]


def _kueue(kind: str, name: str, fleet: str, spec: Object) -> Object:
    metadata: Object = {"name": name, "labels": {FLEET_LABEL: fleet}}
    return {"apiVersion": QUEUE_GROUP, "kind": kind, "metadata": metadata, "spec": spec}


def _kubectl(*arguments: str, objects: Sequence[Object] = ()) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    done = subprocess.run(
        [program("kubectl"), *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")


def _num_ready(server: Api, name: str) -> int:
    nodes = server.get(api.NODES, labelSelector=f"{FLEET_LABEL}={name}")["items"]
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"]["conditions"])
        for one in nodes
        if one["status"].get("conditions")
    )


def _exists(server: Api, path: str) -> bool:
    try:
        server.get(path)
    except Refused:
        return False
    return True
