"""Ending a Job that will not end well by itself, and the verdict that stays."""

import copy
import time
from pathlib import Path

import pytest

from tasks.cluster import following
from tasks.run_dir import RunDir
from tests.unit.cluster.recordings import document, seen
from tests.unit.cluster.runs import hurry, run_folder
from tests.unit.cluster.servers import lists, refuses, routed, says
from tests.unit.cluster.test_following import (
    EVENTS,
    JOBS,
    PODS,
    SETTINGS,
    WORKLOADS,
    followed,
    history,
    name_of,
    told,
)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return run_folder(tmp_path)


def test_what_will_never_end_is_ended(run: RunDir) -> None:
    name, routes = name_of("image-name"), told("image-name")
    its = f"{WORKLOADS}/{document('image-name')['workload']['metadata']['name']}"
    routes |= {
        ("PATCH", f"{JOBS}/{name}"): [says(document("image-name")["job"])],
        ("PATCH", its): [says({})],
        ("DELETE", f"{JOBS}/{name}"): [says({})],
    }
    routes["GET", PODS].append(lists(2))
    with routed(routes) as (asked, server):
        assert followed(server, run, name).kind == "user"
    marks = asked.was_asked("PATCH", f"{JOBS}/{name}")
    assert marks == [{"metadata": {"annotations": {"headrace.dev/cancelled": "true"}}}]
    assert asked.was_asked("PATCH", its) == [{"spec": {"active": False}}]
    assert len(asked.was_asked("DELETE", f"{JOBS}/{name}")) == 1


def test_an_ending_that_fails_does_not_hide_why_it_was_to_end(run: RunDir) -> None:
    name, routes = name_of("image-name"), told("image-name")
    routes["DELETE", f"{JOBS}/{name}"] = [refuses(503, "ServiceUnavailable", "etcd is away")]
    routes["PATCH", f"{JOBS}/{name}"] = [refuses(500, "InternalError", "no webhook")]
    with routed(routes) as (_, server):
        settings = SETTINGS.model_copy(update={"lost_s": 0.01})
        assert followed(server, run, name, settings=settings).kind == "user"
    assert history(run)[-1] == (
        f"the Job {name} could not be ended: Kubernetes does not answer: etcd is away; "
        f"kubectl -n n delete job {name}"
    )


def test_a_container_that_still_cannot_start_after_its_time_is_given_up(run: RunDir) -> None:
    name, routes = name_of("image-no-registry"), told("image-no-registry")
    (pod,) = copy.deepcopy(seen("image-no-registry").pods)
    for container in (
        pod["status"].get("initContainerStatuses", []) + pod["status"]["containerStatuses"]
    ):
        container["state"] = {"waiting": {"reason": "CreateContainerError", "message": "no"}}
    routes |= {
        ("GET", PODS): [lists(1, pod), lists(2)],
        ("PATCH", f"{JOBS}/{name}"): [says(document("image-no-registry")["job"])],
        ("DELETE", f"{JOBS}/{name}"): [says({})],
    }
    began = time.monotonic()
    settings = SETTINGS.model_copy(update={"pull_patience_s": 0.3})
    with routed(routes) as (_, server):
        found = followed(server, run, name, settings=settings)
    assert found.message.endswith("cannot start on dev-1: CreateContainerError no")
    assert time.monotonic() - began > 0.3


def test_a_volume_that_still_cannot_be_mounted_after_its_time_is_the_infrastructures(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to Kueue, it would hold its quota until its time limit, and be called the user's fault."""
    monkeypatch.setattr(following, "ASK_INTERVAL_S", 0.0)
    name, routes = name_of("image-no-registry"), told("image-no-registry")
    (pod,) = copy.deepcopy(seen("image-no-registry").pods)
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodReadyToStartContainers", "status": "False"}],
    }
    event = {
        "metadata": {"uid": "1"}, "involvedObject": {"name": pod["metadata"]["name"]},
        "reason": "FailedMount", "message": "mount.nfs: Connection timed out",
    }  # fmt: skip
    routes |= {
        ("GET", PODS): [lists(1, pod), lists(2)],
        ("GET", EVENTS): [lists(1, event)],
        ("PATCH", f"{JOBS}/{name}"): [says(document("image-no-registry")["job"])],
        ("DELETE", f"{JOBS}/{name}"): [says({})],
    }
    settings = SETTINGS.model_copy(update={"place_patience_s": 0.1})
    with routed(routes) as (asked, server):
        found = followed(server, run, name, settings=settings)
        assert len(asked.was_asked("DELETE", f"{JOBS}/{name}")) == 1
    assert (found.kind, found.message) == (
        "infra", "a volume cannot be mounted on dev-1: mount.nfs: Connection timed out"
    )  # fmt: skip
