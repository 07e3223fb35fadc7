"""A copy of the overlay's queues over fake nodes with GPUs of its own, and where Kueue places Jobs there."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.overlay import (
    apply_dev,
    condition,
    created,
    fake_node,
    get,
    kueue_object,
    until,
    workload_of,
)
from tests.manifests import Object, name_of, objects_of, of_kind

RACKS = {"r1": 2, "r2": 2}
"""Nodes of each rack; each has 8 GPUs."""


class Pool:
    """Names of one copy: a cohort with the two teams' queues, one queue for placement, and nodes."""

    def __init__(self) -> None:
        self.id = f"queues-{uuid.uuid4().hex[:6]}"

    def named(self, name: str) -> str:
        return f"{self.id}-{name}"

    @property
    def nodes(self) -> dict[str, str]:
        return {
            self.named(f"{rack}-{i}"): rack for rack, many in RACKS.items() for i in range(many)
        }


@contextmanager
def queues_and_nodes() -> Iterator[Pool]:
    apply_dev()
    one = Pool()
    label = {"headrace.dev/test": one.id}
    (flavor,) = (
        found for found in of_kind(objects_of("dev"), "ResourceFlavor") if name_of(found) == "h200"
    )
    made = [
        kueue_object(
            "ResourceFlavor", one.named("gpu"), spec={**flavor["spec"], "nodeLabels": label}
        )
    ]
    for queue in of_kind(objects_of("dev"), "ClusterQueue"):
        if name_of(queue) == "data":
            continue
        spec = queue["spec"] | {"cohortName": one.id}
        for group in spec["resourceGroups"]:
            for used in group["flavors"]:
                used["name"] = one.named("gpu")
        made.append(kueue_object("ClusterQueue", one.named(name_of(queue)), spec=spec))
    made.append(kueue_object("ClusterQueue", one.named("wide"), spec=_wide(one)))
    for name in ("foundation", "applied", "wide"):
        local = kueue_object("LocalQueue", one.named(name), spec={"clusterQueue": one.named(name)})
        local["metadata"]["namespace"] = "headrace"
        made.append(local)
    nodes = [
        fake_node(name, rack=one.named(rack), gpus=8, labels=label)
        for name, rack in one.nodes.items()
    ]
    with created(*nodes, *made):
        until(
            "the fake nodes are ready",
            lambda: all(condition(get("node", node), "Ready")[0] == "True" for node in one.nodes),
        )
        yield one


def _wide(one: Pool) -> Object:
    """A queue that only the nodes limit."""
    resources = [
        {"name": name, "nominalQuota": quota}
        for name, quota in {
            "cpu": 1000, "memory": "9000Gi", "ephemeral-storage": "9000Gi", "nvidia.com/gpu": 64,
        }.items()
    ]  # fmt: skip
    group = {
        "coveredResources": [resource["name"] for resource in resources],
        "flavors": [{"name": one.named("gpu"), "resources": resources}],
    }
    return {"namespaceSelector": {}, "resourceGroups": [group]}


def is_admitted(job: str) -> bool:
    return condition(workload_of(job), "Admitted")[0] == "True"


def hosts(job: str) -> list[str]:
    """Where Kueue placed the pods."""
    workload: Any = workload_of(job)
    (assigned,) = workload["status"]["admission"]["podSetAssignments"]
    return sorted(
        value
        for piece in assigned["topologyAssignment"]["slices"]
        for value in _values(piece["valuesPerLevel"][-1])
    )


def _values(level: Any) -> list[str]:
    if "universal" in level:
        return [level["universal"]]
    individual = level["individual"]
    prefix, suffix = individual.get("prefix", ""), individual.get("suffix", "")
    return [f"{prefix}{root}{suffix}" for root in individual["roots"]]
