"""How the queues share GPUs, in Kueue's hands: a copy of the overlay's queues over fake nodes of its own."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from tests.cluster.overlay import (
    answer,
    apply_dev,
    ask,
    condition,
    created,
    fake_node,
    get,
    kueue_object,
    stage_job,
    until,
    workload_of,
)
from tests.manifests import ROOT, Object, name_of, objects_of, of_kind

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


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
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


@pytest.fixture
def jobs() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def submit(
    jobs: ExitStack, pool: Pool, name: str, queue: str, *, gpus: int, num_pods: int = 1,
    priority: str = "research", annotations: dict[str, str] | None = None,
) -> str:  # fmt: skip
    full = pool.named(name)
    job = stage_job(full, pool.named(queue), gpus=gpus, num_pods=num_pods, priority=priority)
    job["spec"]["template"]["metadata"]["annotations"] = {"headrace.dev/fake-duration": "600s"} | (
        annotations or {}
    )
    jobs.enter_context(created(job))
    return full


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


def test_a_team_borrows_what_the_other_lends_and_gives_it_back_on_request(
    pool: Pool, jobs: ExitStack
) -> None:
    # Kueue takes the least of a queue first; of equals, the newest, which says nothing within a second.
    own = submit(jobs, pool, "own", "foundation", gpus=2, priority="production")
    borrowed = [submit(jobs, pool, f"borrowed-{i}", "foundation", gpus=1) for i in (1, 2)]
    until(
        "foundation has its two and applied's two", lambda: all(map(is_admitted, [own, *borrowed]))
    )
    refused = submit(jobs, pool, "beyond", "foundation", gpus=1)
    until("a fifth waits", lambda: condition(workload_of(refused), "QuotaReserved")[0] == "False")
    # Of whatever priority: what was lent comes back.
    ask("delete", "job", refused, "-n", "headrace")
    owner = submit(jobs, pool, "owner", "applied", gpus=2, priority="background")
    until("applied has its two again", lambda: is_admitted(owner))
    stopped = [workload_of(job) for job in borrowed]
    assert [condition(one, "Preempted")[:2] for one in stopped] == [
        ("True", "InCohortReclamation") for _ in borrowed
    ], stopped
    assert is_admitted(own)


def test_a_team_keeps_what_it_does_not_lend(pool: Pool, jobs: ExitStack) -> None:
    mine = submit(jobs, pool, "mine", "applied", gpus=2)
    more = submit(jobs, pool, "more", "applied", gpus=1)
    until(
        "applied has its two and one of foundation's",
        lambda: is_admitted(mine) and is_admitted(more),
    )
    beyond = submit(jobs, pool, "too-much", "applied", gpus=1)
    until(
        "the second is not lent",
        lambda: condition(workload_of(beyond), "QuotaReserved")[0] == "False",
    )
    at_once = submit(jobs, pool, "at-once", "foundation", gpus=1)
    until("foundation has its own at once", lambda: is_admitted(at_once))
    assert is_admitted(mine)
    assert is_admitted(more)


def test_production_stops_background_in_its_own_queue_and_research_does_not_stop_research(
    pool: Pool, jobs: ExitStack
) -> None:
    # The whole cohort is taken, so that there is nothing to borrow.
    other = submit(jobs, pool, "other", "applied", gpus=2)
    low = submit(jobs, pool, "low", "foundation", gpus=1, priority="background")
    middle = submit(jobs, pool, "middle", "foundation", gpus=1)
    until("all run", lambda: all(map(is_admitted, (other, low, middle))))
    high = submit(jobs, pool, "high", "foundation", gpus=1, priority="production")
    until("production runs", lambda: is_admitted(high))
    assert condition(workload_of(low), "Preempted")[:2] == ("True", "InClusterQueue")
    equal = submit(jobs, pool, "equal", "foundation", gpus=1)
    until("an equal waits", lambda: condition(workload_of(equal), "QuotaReserved")[0] == "False")
    assert is_admitted(middle)
    assert is_admitted(other)


RACK = "topology.headrace.dev/rack"


def test_a_stage_on_two_nodes_gets_both_in_one_rack(pool: Pool, jobs: ExitStack) -> None:
    wish = {"kueue.x-k8s.io/podset-preferred-topology": RACK}
    # One node of the first rack is taken, so the other rack alone has two.
    first = submit(jobs, pool, "first", "wide", gpus=8)
    until("the first is placed", lambda: is_admitted(first))
    pair = submit(jobs, pool, "pair", "wide", gpus=8, num_pods=2, annotations=wish)
    until("the pair is placed", lambda: is_admitted(pair))
    assert len({pool.nodes[host] for host in hosts(pair)}) == 1
    assert len(set(hosts(pair))) == 2
    assert set(hosts(first)).isdisjoint(hosts(pair))


def test_a_stage_that_requires_one_rack_waits_for_one(pool: Pool, jobs: ExitStack) -> None:
    wish = {"kueue.x-k8s.io/podset-required-topology": RACK}
    trio = submit(jobs, pool, "trio", "wide", gpus=8, num_pods=3, annotations=wish)
    until("it waits", lambda: "topology" in condition(workload_of(trio), "QuotaReserved")[2])
    assert not is_admitted(trio)


def test_a_node_that_was_taken_out_gets_no_stage(pool: Pool, jobs: ExitStack) -> None:
    sick, *sound = pool.nodes
    ask("taint", "node", sick, "headrace.dev/unhealthy=Xid:NoSchedule")
    try:
        three = submit(jobs, pool, "three", "wide", gpus=8, num_pods=3)
        until("three nodes are left", lambda: is_admitted(three))
        assert hosts(three) == sorted(sound)
        fourth = submit(jobs, pool, "fourth", "wide", gpus=8)
        until(
            "the fourth waits",
            lambda: condition(workload_of(fourth), "QuotaReserved")[0] == "False",
        )
    finally:
        ask("taint", "node", sick, "headrace.dev/unhealthy-")
    until("it runs on the node that returned", lambda: is_admitted(fourth))
    assert hosts(fourth) == [sick]


def as_a_stages(job: Object) -> Object:
    """`job` with what k8s/job.yaml says of failed pods; it lasts for minutes."""
    real = next(yaml.safe_load_all((ROOT / "k8s" / "job.yaml").read_text()))["spec"]
    policy = real["podFailurePolicy"]
    policy["rules"] = [one for one in policy["rules"] if "preflight" not in str(one)]
    job["spec"] |= {
        "podFailurePolicy": policy,
        "podReplacementPolicy": real["podReplacementPolicy"],
    }
    job["spec"]["template"]["metadata"]["annotations"] = {"headrace.dev/fake-duration": "600s"}
    return job


@pytest.mark.parametrize("how", ["taint", "drain"])
def test_a_running_stage_that_is_driven_off_its_node_goes_on_on_another_within_its_job(
    pool: Pool, jobs: ExitStack, how: str
) -> None:
    job = as_a_stages(stage_job(pool.named(f"driven-{how}"), pool.named("wide"), gpus=8))
    name = name_of(job)
    jobs.enter_context(created(job))
    pod = until("it runs", lambda: running_pod(name))
    sick = pod["spec"]["nodeName"]
    if how == "taint":
        ask("taint", "node", sick, "headrace.dev/unhealthy=Xid:NoExecute")
    else:
        ask("cordon", sick)
        evict(pod)
    try:
        until("it is driven out", lambda: running_pod(name) is None)
        leave(pod, 75)
        elsewhere = until("it runs again", lambda: running_pod(name))["spec"]["nodeName"]
        assert elsewhere != sick
        assert hosts(name) == [elsewhere]
        status = get("job", name, "-n", "headrace")["status"]
        assert "Failed" not in str(status), status
    finally:
        if how == "taint":
            ask("taint", "node", sick, "headrace.dev/unhealthy-")
        else:
            ask("uncordon", sick)


def test_a_stage_whose_node_is_taken_out_before_it_begins_stays_in_its_job(
    pool: Pool, jobs: ExitStack
) -> None:
    """Kueue fails the pod that it has placed there, by a condition of its own."""
    job = as_a_stages(stage_job(pool.named("late"), pool.named("wide"), gpus=8))
    name, claim = name_of(job), {"claimName": "not-there-yet"}
    job["spec"]["template"]["spec"]["volumes"] = [{"name": "late", "persistentVolumeClaim": claim}]
    jobs.enter_context(created(job))
    (sick,) = until("it is placed, and waits", lambda: is_admitted(name) and hosts(name))
    (pod,) = until("its pod is there", lambda: placed_pods(name, sick))
    ask("taint", "node", sick, "headrace.dev/unhealthy=Xid:NoSchedule")
    try:
        until("another node is found", lambda: sick not in hosts(name))
        until("Kueue fails the pod", lambda: failed_by_kueue(name_of(pod)))
        until("a new one is placed there", lambda: placed_pods(name, hosts(name)[0]))
        status = get("job", name, "-n", "headrace")["status"]
        assert "Failed" not in str(status), status
    finally:
        ask("taint", "node", sick, "headrace.dev/unhealthy-")


def pods_of(job: str) -> list[Object]:
    found: list[Object] = get(
        "pods", "-n", "headrace", "-l", f"batch.kubernetes.io/job-name={job}"
    )["items"]
    return found


def running_pod(job: str) -> Object | None:
    """The Job's pod that runs and may go on."""
    for pod in pods_of(job):
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
            return pod
    return None


def placed_pods(job: str, node: str) -> list[Object]:
    """Those that wait for the node that Kueue has chosen."""
    return [
        pod
        for pod in pods_of(job)
        if pod["status"].get("phase") == "Pending"
        and pod["spec"].get("nodeSelector", {}).get("kubernetes.io/hostname") == node
        and not pod["spec"].get("schedulingGates")
    ]


def failed_by_kueue(pod: str) -> bool:
    """Whether it was: once it has been replaced it may be gone."""
    found = answer("get", "pod", pod, "-n", "headrace", "-o", "jsonpath={.status}")
    return not found or "TerminatedByKueue" in found


def evict(pod: Object) -> None:
    body = {
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name_of(pod), "namespace": "headrace"},
    }  # fmt: skip
    path = f"/api/v1/namespaces/headrace/pods/{name_of(pod)}/eviction"
    ask("create", "--raw", path, "-f", "-", stdin=body)


def leave(pod: Object, exit_code: int) -> None:
    """As a kubelet says it: the stage has ended after its checkpoint."""
    ended = {"terminated": {"exitCode": exit_code, "reason": "Error"}}
    container = {"name": "stage", "image": "none", "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": "Failed", "containerStatuses": [container | {"state": ended}]}
    ask("patch", "pod", name_of(pod), "-n", "headrace", "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": status}))  # fmt: skip
