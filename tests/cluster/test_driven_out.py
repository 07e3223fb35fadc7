"""GPU stages that are driven off their node, on fake nodes: Kueue moves them, and their Job goes on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from tests.cluster.gpu_queues import Pool, hosts, is_admitted, queues_and_nodes
from tests.cluster.overlay import (
    ask,
    condition,
    created,
    get,
    stage_job,
    until,
    workload_of,
)
from tests.manifests import ROOT, Object, name_of


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with queues_and_nodes() as one:
        yield one


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


@pytest.mark.parametrize("how", ["taint", "drain", "eviction"])
def test_a_running_stage_that_is_driven_off_its_node_goes_on_on_another_within_its_job(
    pool: Pool, how: str
) -> None:
    job = as_a_stages(stage_job(pool.named(f"driven-{how}"), pool.named("wide"), gpus=8))
    name = name_of(job)
    with created(job):
        pod = until("it runs", lambda: running_pod(name))
        sick = pod["spec"]["nodeName"]
        match how:
            case "taint":
                ask("taint", "node", sick, "headrace.dev/unhealthy=Xid:NoExecute")
            case "drain":
                ask("cordon", sick)
                evict(pod)
            case _:  # as the node controller does it
                ask("taint", "node", sick, "headrace.dev/unhealthy=Xid:NoSchedule")
                evict(pod)
        try:
            until("it is driven out", lambda: running_pod(name) is None)
            leave(pod, 75)
            elsewhere = until("it runs again", lambda: running_pod(name))["spec"]["nodeName"]
            assert elsewhere != sick
            assert hosts(name) == [elsewhere]
            assert "Failed" not in str(status_of(name))
        finally:
            if how == "drain":
                ask("uncordon", sick)
            else:
                ask("taint", "node", sick, "headrace.dev/unhealthy-")


def test_a_stage_whose_node_is_taken_out_before_it_begins_stays_in_its_job(
    pool: Pool,
) -> None:
    """Kueue fails the pod that it has placed there, by a condition of its own."""
    job = as_a_stages(stage_job(pool.named("late"), pool.named("wide"), gpus=8))
    name, claim = name_of(job), {"claimName": "not-there-yet"}
    job["spec"]["template"]["spec"]["volumes"] = [{"name": "late", "persistentVolumeClaim": claim}]
    with created(job):
        (sick,) = until("it is placed, and waits", lambda: hosts(name) if is_admitted(name) else [])
        (pod,) = until("its pod is there", lambda: placed_pods(name, sick))
        ask("taint", "node", sick, "headrace.dev/unhealthy=Xid:NoSchedule")
        try:
            until("another node is found", lambda: sick not in hosts(name))
            until("Kueue fails the pod", lambda: failed_by_kueue(name_of(pod)))
            until("a new one is placed there", lambda: placed_pods(name, hosts(name)[0]))
            assert "Failed" not in str(status_of(name))
        finally:
            ask("taint", "node", sick, "headrace.dev/unhealthy-")


def test_a_stage_that_kueue_stops_is_not_failed_however_long_its_pod_takes_to_go(
    pool: Pool,
) -> None:
    """It ends as what the infrastructure fails does, and is listed until its volumes are let go of."""
    job = as_a_stages(stage_job(pool.named("stopped"), pool.named("wide"), gpus=8))
    name = name_of(job)
    with created(job):
        pod = until("it runs", lambda: running_pod(name))
        with kept(pod):
            set_active(name, False)
            until("it is asked to end", lambda: status_of(name).get("terminating") == 1)
            leave(pod, 75)
            until("its end is seen", lambda: status_of(name).get("terminating") == 0)
            assert "Fail" not in str(status_of(name))
            set_active(name, True)
            until("it runs again", lambda: running_pod(name))
            assert "Fail" not in str(status_of(name))


def status_of(job: str) -> Object:
    return dict(get("job", job, "-n", "headrace")["status"])


def set_active(job: str, is_active: bool) -> None:
    """Have Kueue stop the Job, or take it in again."""
    workload = workload_of(job)
    assert workload is not None
    change = json.dumps({"spec": {"active": is_active}})
    ask("patch", "workload", name_of(workload), "-n", "headrace", "--type=merge", "-p", change)


@contextmanager
def kept(pod: Object) -> Iterator[None]:
    """The pod, which ends meanwhile, is listed until the body has ended."""
    patch = ("patch", "pod", name_of(pod), "-n", "headrace")
    add = {"op": "add", "path": "/metadata/finalizers/-", "value": "headrace.dev/kept"}
    ask(*patch, "--type=json", "-p", json.dumps([add]))
    try:
        yield
    finally:
        ask(*patch, "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))


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
    """Fails the test if the pod is gone: nobody could say then who has ended it."""
    found = get("pod", pod, "-n", "headrace")
    by_kueue = condition(found, "TerminatedByKueue")[0] == "True"
    return bool(found["status"]["phase"] == "Failed" and by_kueue)


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
