"""Why a Job failed or never will end, and who must act, for what a real cluster once said."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import ERROR_OF_KIND
from tasks.cluster.diagnose import Verdict, held_up, hopeless, stuck, verdict
from tasks.cluster.seen import Seen, instant
from tests.unit.cluster.recordings import names, seen, torn

MEMORY_GIB = 0.0625
LOST_S = 60.0
PULL_PATIENCE_S = 120.0
AGAIN = "run it again: it goes on from its last checkpoint"

FAILED = {
    "stage-64": Verdict("user", "the number is wrong", "mend it", "dev-1"),
    "stage-65": Verdict("data", "the shard is empty", "", "dev-1"),
    "stage-70": Verdict("bug", "ZeroDivisionError: by zero", "see the log", "dev-1"),
    "stage-75": Verdict("infra", "the store was away", "", "dev-1"),
    "stage-69-without-words": Verdict(
        "node", "ended with exit code 69: two", "see its log", "dev-1"
    ),
    "stage-python": Verdict(
        "bug", "ended with exit code 1: RuntimeError: nobody expected this", "see its log", "dev-1"
    ),
    "stage-137": Verdict("infra", "the pod on dev-1 was ended by a signal", AGAIN, "dev-1"),
    "stage-out-of-memory": Verdict(
        "user", "ran out of memory: stage on dev-1 had 0.0625 GiB",
        "raise memory_gib in k8s/resources.yaml, or make the model or the batch smaller", "dev-1",
    ),
    "evicted-for-scratch": Verdict(
        "user", 'evicted from dev-1: Usage of EmptyDir volume "tmp" exceeds the limit "20Mi".',
        "raise scratch_gib in k8s/resources.yaml", "dev-1",
    ),
    "preflight-64": Verdict(
        "user", "the pre-check on dev-1 ended with exit code 64: wrong usage",
        "see `kubectl logs` of the pod's container preflight", "dev-1",
    ),
    "preflight-69": Verdict(
        "node", "dev-1 failed its pre-check: /tmp is 99% used, allowed 95%",
        "the next attempt goes to another node; `headrace nodes` says more", "dev-1",
    ),
    "preflight-75": Verdict(
        "infra",
        "the pre-check on dev-1 could not tell: no answer of the time service in 5 s",
        AGAIN, "dev-1",
    ),
    "preflight-137": Verdict("infra", "the pod on dev-1 was ended by a signal", AGAIN, "dev-1"),
    "gang-failed": Verdict("user", "ran out of memory", "make the batch smaller", "dev-1"),
    "refused-by-kubelet": Verdict(
        "infra",
        "OutOfcpu on dev-1: Pod was rejected: Node didn't have enough resource: cpu, "
        "requested: 64000, used: 0, capacity: 2000",
        AGAIN, "dev-1",
    ),
}  # fmt: skip
PULLED = "is it built and pushed? HEADRACE_IMAGE names it"


@pytest.mark.parametrize("name", FAILED)
def test_a_failed_job_says_why_and_who_must_act(name: str) -> None:
    assert verdict(seen(name), MEMORY_GIB) == FAILED[name]


def test_a_program_that_is_not_in_the_image_is_named() -> None:
    found = verdict(seen("stage-absent"), MEMORY_GIB)
    assert found.kind == "bug"
    assert 'exec: "/absent": stat /absent: no such file or directory' in found.message


def test_a_failed_job_without_pods_says_what_the_job_says() -> None:
    full = seen("refused-by-kubelet")
    assert verdict(Seen(full.job, (), full.workload, full.at), MEMORY_GIB) == Verdict(
        "infra",
        "the Job failed without a word of its pods: BackoffLimitExceeded: "
        "Job has reached the specified backoff limit",
        AGAIN,
    )


def test_of_several_pods_the_one_that_has_the_reason_counts_in_any_order() -> None:
    full = seen("gang-failed")
    kinds = [verdict(Seen(full.job, (pod,), None, full.at), MEMORY_GIB).kind for pod in full.pods]
    assert sorted(kinds) == ["infra", "user"]
    turned = Seen(full.job, full.pods[::-1], full.workload, full.at)
    assert verdict(turned, MEMORY_GIB) == FAILED["gang-failed"]


def test_a_pod_that_was_driven_out_earlier_does_not_hide_why_the_next_one_failed() -> None:
    """Its kubelet ended the pre-check of the first with SIGKILL; that is nobody's bug."""
    driven_out = copy.deepcopy(seen("preflight-137").pods[0])
    target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    driven_out["status"]["conditions"].append(target)
    full = seen("stage-75")
    both = Seen(full.job, (driven_out, *full.pods), full.workload, full.at)
    assert verdict(both, MEMORY_GIB) == FAILED["stage-75"]
    alone = verdict(Seen(full.job, (driven_out,), full.workload, full.at), MEMORY_GIB)
    assert alone.message == "the pod on dev-1 was ended by DeletionByTaintManager"


LAST_WORDS = st.one_of(
    st.text(max_size=50),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    ).map(json.dumps),
    st.fixed_dictionaries(
        {"kind": st.text() | st.integers() | st.sampled_from(["ok", "user"]),
         "message": st.text() | st.none(), "hint": st.text() | st.none()}
    ).map(json.dumps),
)  # fmt: skip


@settings(max_examples=30)
@given(LAST_WORDS, st.integers(1, 255), st.sampled_from(["stage-64", "preflight-69"]))
def test_whatever_a_container_says_last_there_is_a_verdict_of_a_known_kind(
    words: str, code: int, name: str
) -> None:
    full = copy.deepcopy(seen(name))
    for container in (
        full.pods[0]["status"]["initContainerStatuses"]
        + full.pods[0]["status"]["containerStatuses"]
    ):
        if ended := container["state"].get("terminated"):
            ended |= {"message": words, "exitCode": code}
    found = verdict(full, MEMORY_GIB)
    assert found.kind in ERROR_OF_KIND
    assert isinstance(found.message, str)
    assert isinstance(found.hint, str)


def hope(of: Seen, at: float | None = None) -> Verdict | None:
    return hopeless(Seen(of.job, of.pods, of.workload, at or of.at), LOST_S, PULL_PATIENCE_S)


IN_VAIN = {"image-name", "image-absent", "evicted-twice", "out-of-time", "rejected"}


@pytest.mark.parametrize("name", [name for name in names() if name != "queue"])
def test_waiting_is_given_up_only_where_it_is_in_vain(name: str) -> None:
    assert (hope(seen(name)) is not None) == (name in IN_VAIN)


def test_a_job_that_is_over_its_time_is_the_users_affair() -> None:
    assert hope(seen("out-of-time")) == Verdict(
        "user", "its time limit is over",
        "raise time_limit_h in k8s/resources.yaml; it goes on from its last checkpoint",
    )  # fmt: skip


def test_a_job_that_kueue_itself_gave_up_says_so() -> None:
    found = hope(seen("rejected"))
    assert found is not None
    assert (found.kind, found.message) == (
        "infra",
        "Kueue gave it up: The workload is deactivated due to AdmissionCheck in Rejected state: "
        '"recorded" (no machine can be had)',
    )


@pytest.mark.parametrize("name", ["out-of-time", "rejected"])
def test_a_job_that_was_given_up_and_is_wanted_again_is_waited_for(name: str) -> None:
    again = copy.deepcopy(seen(name))
    assert again.workload is not None
    again.workload["spec"]["active"] = True
    assert hope(again) is None


@pytest.mark.parametrize("name", ["image-name", "image-absent"])
def test_an_image_that_cannot_be_is_the_users_affair_at_once(name: str) -> None:
    found = hope(seen(name))
    assert found is not None
    assert (found.kind, found.hint, found.node) == ("user", PULLED, "dev-1")
    assert "cannot be pulled" in found.message


def test_a_registry_that_does_not_answer_has_its_time_from_the_first_try() -> None:
    full = copy.deepcopy(seen("image-no-registry"))
    (pod,) = full.pods
    began_at = instant(pod["status"]["startTime"])
    pod["metadata"]["creationTimestamp"] = "2026-11-26T00:00:00Z"  # it had to wait for a node
    assert hope(full, began_at + PULL_PATIENCE_S - 1) is None
    found = hope(full, began_at + PULL_PATIENCE_S + 1)
    assert found is not None
    assert (found.kind, found.hint) == ("infra", PULLED)
    assert "Temporary failure in name resolution" in found.message


@pytest.mark.parametrize(
    ("reason", "said", "kind"),
    [
        ("CreateContainerConfigError", 'secret "a" not found', "user"),
        ("CreateContainerConfigError", "services have not yet been read at least once", "infra"),
        ("CreateContainerError", "context deadline exceeded", "infra"),
    ],
)
def test_a_container_that_cannot_start_says_who_must_act(reason: str, said: str, kind: str) -> None:
    full = copy.deepcopy(seen("image-no-registry"))
    (pod,) = full.pods
    for container in (
        pod["status"].get("initContainerStatuses", []) + pod["status"]["containerStatuses"]
    ):
        container["state"] = {"waiting": {"reason": reason, "message": said}}
    found = stuck(full)
    assert found is not None
    assert (found.kind, found.node) == (kind, "dev-1")
    assert found.message.endswith(f"cannot start on dev-1: {reason} {said}")


def test_a_pod_without_its_volume_is_the_users_affair_and_one_without_a_node_waits() -> None:
    full = copy.deepcopy(seen("no-node"))
    assert stuck(full) is None
    (pod,) = full.pods
    (unplaced,) = [one for one in pod["status"]["conditions"] if one["type"] == "PodScheduled"]
    unplaced["message"] = '0/1 nodes are available: persistentvolumeclaim "nfs" not found. still'
    found = stuck(full)
    assert found is not None
    assert (found.kind, found.message) == ("user", f"no volume for the pod: {unplaced['message']}")


def test_a_pod_that_no_node_takes_is_held_up_by_the_infrastructure_in_the_schedulers_words() -> (
    None
):
    found = held_up(seen("no-node"), {})
    assert found is not None
    assert (found.kind, found.node) == ("infra", "")
    assert found.message.startswith("no node takes the pod: 0/1 nodes are available: 1 node(s)")
    assert held_up(seen("running"), {}) is None
    assert held_up(seen("queued"), {}) is None


def test_a_volume_that_cannot_be_mounted_holds_a_pod_up_until_it_is() -> None:
    full = copy.deepcopy(seen("image-no-registry"))
    (pod,) = full.pods
    told = {pod["metadata"]["name"]: 'MountVolume.SetUp failed for volume "project"\nmore'}
    assert held_up(full, told) is None  # the event is of before: its containers may start
    (begun,) = [
        one for one in pod["status"]["conditions"] if one["type"] == "PodReadyToStartContainers"
    ]
    begun["status"] = "False"
    assert held_up(full, {}) is None
    found = held_up(full, told)
    assert found is not None
    assert (found.kind, found.node, found.message) == (
        "infra", "dev-1",
        'a volume cannot be mounted on dev-1: MountVolume.SetUp failed for volume "project"',
    )  # fmt: skip
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert held_up(full, told) is None


def test_a_pod_that_a_node_does_not_end_in_time_makes_the_node_a_sick_one() -> None:
    full = seen("silent-node")
    (pod,) = full.pods
    due_at = instant(pod["metadata"]["deletionTimestamp"])
    assert hope(full, due_at + LOST_S - 1) is None
    found = hope(full, due_at + LOST_S + 1)
    assert found is not None
    assert (found.kind, found.node) == ("node", "silent")
    assert found.message == (
        f"silent does not answer: the pod {pod['metadata']['name']} should have ended long ago"
    )


def test_two_evictions_for_want_of_room_are_the_users_affair_but_not_two_shutdowns() -> None:
    found = hope(seen("evicted-twice"))
    assert found is not None
    assert (found.kind, found.node) == ("user", "evicted-twice")
    assert found.message.startswith("evicted 2 times: The node was low on resource: memory.")
    assert hope(seen("shut-down-twice")) is None
    once = seen("evicted-twice")
    assert hope(Seen(once.job, once.pods[:2], once.workload, once.at)) is None


@settings(max_examples=30)
@given(st.sampled_from([name for name in names() if name != "queue"]), st.data())
def test_no_field_that_a_server_leaves_out_is_needed(name: str, data: st.DataObject) -> None:
    bare = torn(seen(name), lambda: data.draw(st.booleans()))
    assert verdict(bare, MEMORY_GIB).kind in ERROR_OF_KIND
    found = hope(bare)
    assert found is None or found.kind in ERROR_OF_KIND
