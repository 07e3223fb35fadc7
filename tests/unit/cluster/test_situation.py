"""Where a Job is: what is told of it, for what a real cluster once said."""

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cluster.seen import Seen, finished
from tasks.cluster.situation import Situation, gang, order_in_queue, situation
from tests.unit.cluster.recordings import document, names, seen, torn

NO_ROOM = (
    "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor recorded, "
    "200m more needed"
)
NO_NODE = (
    "no node: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
    "no new claims to deallocate, preemption: 0/1 nodes are available: "
    "1 Preemption is not helpful for scheduling."
)
NO_ANSWER = (
    'ErrImagePull failed to pull and unpack image "dev.local/headrace:absent": failed to resolve '
    'reference "dev.local/headrace:absent": failed to do request: Head '
    '"https://dev.local/v2/headrace/manifests/absent": dial tcp: lookup dev.local: '
    "Temporary failure in name resolution"
)
OUT_OF_TIME = (
    "DeactivatedDueToMaximumExecutionTimeExceeded; The workload is deactivated due to exceeding the "
    "maximum execution time"
)
ON_DEV_1 = ("dev-1",)

FOUND = {
    "queued": Situation("queued", NO_ROOM),
    "checked": Situation("queued", "the admission check recorded is Pending"),
    "admitted": Situation("admitted"),
    "no-node": Situation("starting", NO_NODE),
    "image-no-registry": Situation("starting", NO_ANSWER, ON_DEV_1),
    "pre-check-runs": Situation("starting", "the pre-check runs", ON_DEV_1),
    "gang-starts": Situation("starting", "the pre-check runs", ON_DEV_1),
    "running": Situation("running", nodes=ON_DEV_1),
    "gang": Situation("running", nodes=ON_DEV_1),
    "elastic": Situation("running", nodes=ON_DEV_1),
    "gang-one-done": Situation("running", nodes=ON_DEV_1),
    "preempted-stopping": Situation("stopping", "Preempted InClusterQueue", ON_DEV_1),
    "preempted": Situation("preempted", f"Preempted InClusterQueue; {NO_ROOM}"),
    "drained-stopping": Situation("stopping", nodes=ON_DEV_1),
    "drained": Situation("admitted"),
    "silent-node": Situation("stopping", nodes=("silent",)),
    "deleted": Situation("stopping", "its Job is gone", ON_DEV_1),
    "deactivated": Situation("preempted", "Deactivated; The workload is deactivated"),
    "rejected": Situation("preempted", "DeactivatedDueToAdmissionCheck"),
    "out-of-time": Situation("preempted", OUT_OF_TIME),
    "complete": Situation("ended", nodes=ON_DEV_1),
    "stage-75": Situation("ended", nodes=ON_DEV_1),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_job_is_where_the_cluster_says(name: str) -> None:
    assert situation(seen(name)) == FOUND[name]


def test_a_job_that_nobody_has_seen_yet_is_submitted() -> None:
    assert situation(Seen(None, (), None, 0.0)) == Situation("submitted")


def test_a_job_whose_workload_is_not_there_yet_waits_for_kueue() -> None:
    fresh = seen("queued")
    assert situation(Seen(fresh.job, (), None, fresh.at)).detail == "Kueue has not seen it yet"


def test_a_situation_is_told_with_its_nodes_and_its_reason() -> None:
    assert str(Situation("running", nodes=("a", "b"))) == "running on a, b"
    assert str(Situation("queued", "no room")) == "queued: no room"
    assert str(Situation("starting", "no node", ("a",))) == "starting on a: no node"


@pytest.mark.parametrize("name", [name for name in names() if name != "queue"])
def test_only_complete_and_failed_are_an_end(name: str) -> None:
    job = seen(name).job
    ends = {"complete": "Complete", "evicted-for-scratch": "Failed", "refused-by-kubelet": "Failed"}
    failed = name.startswith(("stage-", "preflight-")) or name == "gang-failed"
    assert (finished(job) if job else "") == ends.get(name, "Failed" if failed else "")


@settings(max_examples=30)
@given(st.sampled_from([name for name in names() if name != "queue"]), st.data())
def test_no_field_that_a_server_leaves_out_is_needed(name: str, data: st.DataObject) -> None:
    """An API leaves out what is empty: of a status nothing can be taken for granted."""
    bare = torn(seen(name), lambda: data.draw(st.booleans()))
    state = situation(bare).state
    assert state == "ended" or not (bare.job and finished(bare.job))


def waiting_in_order(workloads: list[dict[str, Any]]) -> list[str]:
    """The names of those that wait, by the places they are given."""
    places = {one["metadata"]["name"]: order_in_queue(one, workloads) for one in workloads}
    found = sorted((place, name) for name, place in places.items() if place)
    assert [place for place, _ in found] == [(i + 1, len(found)) for i in range(len(found))]
    return [name for _, name in found]


def test_the_queues_order_is_that_in_which_kueue_let_jobs_in() -> None:
    found = document("queue")
    assert len(found["let_in"]) == 4
    assert waiting_in_order(found["workloads"]) == found["let_in"]


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_the_queues_order_is_not_the_lists(shuffler: random.Random) -> None:
    found = document("queue")
    shuffler.shuffle(found["workloads"])
    assert waiting_in_order(found["workloads"]) == found["let_in"]


def test_a_job_that_kueue_gave_up_waiting_for_pods_goes_to_the_queues_end() -> None:
    found = document("queue")
    one, two, three, last = found["let_in"]
    (evicted,) = (
        condition
        for workload in found["workloads"]
        for condition in workload["status"].get("conditions", [])
        if condition["type"] == "Evicted"
    )
    assert evicted["reason"] == "Preempted"
    evicted["reason"] = "PodsReadyTimeout"
    assert waiting_in_order(found["workloads"]) == [two, three, one, last]


@pytest.mark.parametrize("name", ["running", "checked", "deactivated", "out-of-time"])
def test_what_does_not_wait_for_quota_has_no_place(name: str) -> None:
    workload = seen(name).workload
    assert workload is not None
    assert order_in_queue(workload, [workload, *document("queue")["workloads"]]) is None


def test_those_of_another_queue_are_not_counted() -> None:
    found = document("queue")
    by_name = {one["metadata"]["name"]: one for one in found["workloads"]}
    first, second, *_ = (by_name[name] for name in found["let_in"])
    assert order_in_queue(second, found["workloads"]) == (2, 4)
    first["spec"]["queueName"] = "foundation"
    assert order_in_queue(first, found["workloads"]) == (1, 1)
    assert order_in_queue(second, found["workloads"]) == (1, 3)


def test_a_gang_is_known_once_all_of_its_pods_are_there() -> None:
    assert [name[-7:-6] for name in gang(seen("gang")) or []] == ["0", "1"]
    assert gang(seen("gang-starts")) is not None
    for name in ("gang-one-done", "queued", "preempted", "deleted", "gang-failed"):
        assert gang(seen(name)) is None, name


def test_a_gang_has_the_order_of_its_numbers_and_the_size_that_kueue_admitted() -> None:
    found = seen("gang")
    members = gang(found)
    assert members == [pod["metadata"]["name"] for pod in sorted_by_index(found)]
    assert gang(Seen(found.job, found.pods[::-1], found.workload, found.at)) == members
    assert len(gang(seen("elastic")) or []) == 2


def test_a_gang_with_a_pod_that_is_asked_to_end_is_not_whole() -> None:
    found = copy.deepcopy(seen("gang"))
    found.pods[1]["metadata"]["deletionTimestamp"] = "2026-11-26T08:20:00Z"
    assert gang(found) is None


def sorted_by_index(of: Seen) -> list[dict[str, Any]]:
    key = "batch.kubernetes.io/job-completion-index"
    return sorted(of.pods, key=lambda pod: int(pod["metadata"]["annotations"][key]))
