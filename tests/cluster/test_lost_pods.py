"""Pods that are driven out, deleted or lost: who replaces them, and that the work goes on, once."""

import json
import subprocess
import sys
from pathlib import Path

from tests.cluster import projects
from tests.cluster.conftest import Place
from tests.cluster.overlay import created, fake_node
from tests.cluster.test_failures import launch, without
from tests.cluster.test_jobs import (
    assert_each_step_once,
    held_pod,
    hold,
    jobs,
    let_go,
    outcome_of,
    running_pod,
    start,
)
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for, working_in


def test_a_drained_pod_is_replaced_within_the_attempt(place: Place) -> None:
    hold(place)
    process = start(place, "source")
    pod = wait_for(lambda: held_pod(place))
    eviction = {
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": place.namespace},
    }  # fmt: skip
    path = f"/api/v1/namespaces/{place.namespace}/pods/{pod}/eviction"
    projects.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    wait_for(lambda: running_pod(place) not in ("", pod))
    assert_went_on_within_the_attempt(place, process)


def test_a_taint_that_drives_pods_out_is_survived_within_the_attempt(place: Place) -> None:
    hold(place)
    process = start(place, "source")
    pod = wait_for(lambda: held_pod(place))
    projects.kubectl("taint", "node", "dev-1", "headrace.dev/unhealthy=test:NoExecute")
    try:
        wait_for(lambda: running_pod(place) == "")
    finally:
        projects.kubectl("taint", "node", "dev-1", "headrace.dev/unhealthy-")
    wait_for(lambda: running_pod(place) not in ("", pod))
    assert_went_on_within_the_attempt(place, process)


def assert_went_on_within_the_attempt(place: Place, process: "subprocess.Popen[str]") -> None:
    """From the checkpoint of the first pod, never beside it, and with the right text."""
    let_go(place)
    said, _ = process.communicate(timeout=240)
    ended = outcome_of(place, "source")
    assert (ended["kind"], ended["attempt"]) == ("ok", 1), said
    assert_each_step_once(place)
    assert running_twice(place) == []
    assert toy.text_of(place.root, "source") == "s"
    assert len(jobs(place)) == 1


def test_a_pod_deleted_by_hand_is_the_infrastructures_and_the_next_attempt_goes_on(
    place: Place,
) -> None:
    hold(place)
    process = start(place, "source")
    pod = wait_for(lambda: held_pod(place))
    projects.kubectl("delete", "pod", pod, "-n", place.namespace, "--wait=false")
    assert_the_next_attempt_goes_on(place, process)


def assert_the_next_attempt_goes_on(place: Place, process: "subprocess.Popen[str]") -> None:
    said, _ = process.communicate(timeout=240)
    assert outcome_of(place, "source")["kind"] == "infra", said
    let_go(place)
    launch(place)
    assert_each_step_once(place)
    ended = outcome_of(place, "source")
    assert (ended["kind"], ended["attempt"]) == ("ok", 2)


def test_a_job_deleted_by_hand_is_the_infrastructures_and_the_next_attempt_has_another_number(
    place: Place,
) -> None:
    hold(place)
    process = start(place, "source")
    wait_for(lambda: held_pod(place))
    (job,) = jobs(place)
    projects.kubectl(
        "delete", "job", job["metadata"]["name"], "-n", place.namespace, "--wait=false"
    )
    assert_the_next_attempt_goes_on(place, process)
    assert [job["metadata"]["name"][-3:] for job in jobs(place)] == ["-a2"]


def test_a_silent_node_is_given_up_and_its_pod_can_write_nothing_of_the_next_attempt(
    place: Place,
) -> None:
    """The kubelet is dead and the container goes on: the very pod that the fence is for.

    Kubernetes itself finds out: not ready, the taint, the pod's toleration, the eviction that nobody
    carries out. The toleration is short here, for nobody waits two minutes in a test. Two more nodes
    are there, for where more than half of a zone is silent Kubernetes takes it for its own fault and
    taints none.
    """
    template = place.root / "k8s" / "job.yaml"
    text = template.read_text()
    assert text.count("tolerationSeconds: 120") == 2
    template.write_text(text.replace("tolerationSeconds: 120", "tolerationSeconds: 2"))
    hold(place)
    projects.set_resources(place.root, "source", grace_s=2)
    process = start(place, "source", HEADRACE_LOST_S="4")
    pod = wait_for(lambda: held_pod(place))
    others = [fake_node(f"answers-{i}", rack="r9", gpus=0, labels={}) for i in (1, 2)]
    with created(*others), without("kubelet"):
        said, _ = process.communicate(timeout=240)
        ended = outcome_of(place, "source")
        assert (ended["kind"], ended["node"]) == ("node", "dev-1"), said
        assert f"dev-1 does not answer: the pod {pod} should have ended long ago" in said
        assert evicted_by_taint(place, pod)
        assert is_running_of(place)
        # The next attempt, on this machine, for there is no other node: it takes the work from the
        # pod that still runs. It goes on from a checkpoint past what it would be held at.
        (run,) = (place.root / "runs" / "source").glob("????????????")
        (run / "work" / "next_step").write_text("2")
        toy.run(
            place.root, sys.executable, "-m", "tasks.launch", "source", HEADRACE_FLOW_RUN="none",
            HEADRACE_LAUNCHER="local",
        )  # fmt: skip
        assert is_running_of(place)
        kept = snapshot(run)
        let_go(place)
        wait_for(lambda: not is_running_of(place))
        assert snapshot(run) == kept
    wait_for(lambda: "unreachable" not in str(projects.get("node", "dev-1")["spec"]))
    assert toy.text_of(place.root, "source") == "s"
    assert outcome_of(place, "source")["attempt"] == 2


def running_twice(place: Place) -> list[str]:
    path = place.root / "runs" / "twice.txt"
    return path.read_text().splitlines() if path.exists() else []


def evicted_by_taint(place: Place, pod: str) -> bool:
    """Whether the node's taint has driven the pod out, as far as the API server knows."""
    conditions = projects.get("pod", pod, "-n", place.namespace)["status"]["conditions"]
    return any(one.get("reason") == "DeletionByTaintManager" for one in conditions)


def is_running_of(place: Place) -> bool:
    """Whether a process on this machine, in a container or not, runs the source of the project."""
    return bool(working_in(place.root, "-m tasks.pod source "))


def snapshot(run: Path) -> dict[str, bytes]:
    """All that a reader of the run can see."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and "pods" not in path.relative_to(run).parts
    }
