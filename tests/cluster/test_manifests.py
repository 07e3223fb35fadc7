"""The manifests on a real API server, with a real Kueue and a real kubelet."""

import uuid

import pytest

from tests.cluster.overlay import (
    VOLUME,
    apply_dev,
    ask,
    condition,
    created,
    get,
    refusal,
    stage_job,
    until,
)
from tests.manifests import Object


@pytest.fixture(scope="module", autouse=True)
def _applied() -> None:
    apply_dev()


@pytest.fixture
def name() -> str:
    return f"manifests-{uuid.uuid4().hex[:8]}"


def test_every_queue_is_active_and_both_claims_are_bound() -> None:
    def inactive() -> list[str]:
        return [
            one["metadata"]["name"]
            for kind in ("clusterqueues", "localqueues")
            for one in get(kind, "-A")["items"]
            if one["metadata"]["name"] in ("foundation", "applied", "data")
            and condition(one, "Active")[0] != "True"
        ]

    until("the queues are active", lambda: not inactive())
    for namespace in ("headrace", "headrace-system"):
        until(
            f"the claim in {namespace} is bound",
            lambda n=namespace: get("pvc", "headrace", "-n", n)["status"]["phase"] == "Bound",
        )


def test_the_api_server_finds_no_fault_in_the_policies() -> None:
    found = get("validatingadmissionpolicies")["items"]
    ours = {
        one["metadata"]["name"]: one["status"]
        for one in found
        if "headrace" in str(one["metadata"])
    }
    assert {"headrace-queued", "headrace-stage-pods"} <= set(ours)
    assert [name for name, status in ours.items() if status.get("typeChecking")] == []


def test_a_job_goes_through_the_queue_or_is_refused(name: str) -> None:
    job = stage_job(name, "data")
    assert refusal(job) == ""
    del job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert "kubectl get localqueues -n headrace" in refusal(job)
    elsewhere = {**job, "metadata": {**job["metadata"], "namespace": "default"}}
    assert refusal(elsewhere) == ""


def test_the_queue_label_cannot_be_taken_off(name: str) -> None:
    job = stage_job(name, "data", command=["sleep", "60"])
    with created(job), pytest.raises(AssertionError, match="a Job here needs the label"):
        ask("label", "job", name, "-n", "headrace", "kueue.x-k8s.io/queue-name-")


def test_a_job_that_requests_nothing_is_refused(name: str) -> None:
    job = stage_job(name, "data")
    job["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    assert "requests for cpu and memory" in refusal(job)


def pod_of_a_job(name: str) -> Object:
    job = stage_job(name, "data")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": str(uuid.uuid4())}
    metadata = {"name": name, "namespace": "headrace", "ownerReferences": [owner]}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": job["spec"]["template"]["spec"],
    }  # fmt: skip


def test_a_pod_of_a_job_is_taken_and_one_of_nobody_refused(name: str) -> None:
    pod = pod_of_a_job(name)
    assert refusal(pod) == ""
    del pod["metadata"]["ownerReferences"]
    assert "belongs to a Job" in refusal(pod)


def test_a_stage_pod_with_a_token_is_refused(name: str) -> None:
    pod = pod_of_a_job(name)
    pod["spec"]["automountServiceAccountToken"] = True
    assert "no service-account token" in refusal(pod)


def test_a_stage_pod_with_a_writable_root_is_refused(name: str) -> None:
    pod = pod_of_a_job(name)
    (stage,) = pod["spec"]["containers"]
    before = {**stage, "name": "before", "securityContext": dict(stage["securityContext"])}
    pod["spec"]["initContainers"] = [before]
    assert refusal(pod) == ""
    del before["securityContext"]["readOnlyRootFilesystem"]
    assert "read-only root" in refusal(pod)
    del pod["spec"]["initContainers"]
    stage["securityContext"]["readOnlyRootFilesystem"] = False
    assert "read-only root" in refusal(pod)


@pytest.mark.parametrize("namespace", ["headrace", "headrace-system"])
def test_a_pod_beyond_restricted_is_refused(name: str, namespace: str) -> None:
    pod = pod_of_a_job(name)
    pod["metadata"]["namespace"] = namespace
    if namespace == "headrace-system":
        pod["spec"]["serviceAccountName"] = "server"
    assert refusal(pod) == ""
    pod["spec"]["volumes"] = [{"name": "host", "hostPath": {"path": "/etc"}}]
    assert 'violates PodSecurity "restricted' in refusal(pod)


LOOK = """
import os, pathlib
def refused(do):
    try:
        do()
    except OSError as error:
        return error.strerror
    return "done"
print(os.getuid(), pathlib.Path("/var/run/secrets/kubernetes.io").exists())
print(refused(lambda: open("/left", "w")))
folder = pathlib.Path("/headrace", os.environ["HOSTNAME"][:18])
folder.mkdir()
print(folder.name)
folder.rmdir()
"""


def test_a_stage_runs_by_the_queue_without_a_token_on_the_shared_volume(name: str) -> None:
    with created(stage_job(name, "data", command=["python3", "-c", LOOK], volume=True)):
        until(
            "the Job is complete",
            lambda: condition(get("job", name, "-n", "headrace"), "Complete")[0] == "True",
        )
        log = ask("logs", "-n", "headrace", f"job/{name}").splitlines()
    assert log == ["1000 False", "Read-only file system", name]
    assert VOLUME.is_dir()
