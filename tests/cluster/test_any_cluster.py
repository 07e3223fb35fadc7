"""What can be asked of any cluster: nothing there is changed but in a namespace that comes and goes.

Whoever names an own cluster (HEADRACE_TEST_KUBECONFIG) may name with HEADRACE_TEST_QUEUE,
HEADRACE_TEST_NAMESPACE and HEADRACE_TEST_IMAGE where one Job may run, and of which image.
"""

import os
import uuid
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.overlay import IMAGE, answer, apply_dev, ask, created, is_ours, stage_job
from tests.manifests import OVERLAYS, objects_of

PLACE = ("HEADRACE_TEST_QUEUE", "HEADRACE_TEST_NAMESPACE", "HEADRACE_TEST_IMAGE")
JOB_TIMEOUT_S = 600
"""An image may have to be pulled."""


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    """A namespace of the tests' own; gone after."""
    name = f"headrace-test-{uuid.uuid4().hex[:8]}"
    with created({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}):
        yield name


@pytest.fixture(scope="module")
def _administrator() -> None:
    ask("get", "--raw", "/version")  # a cluster that does not answer is no reason to skip
    if answer("auth", "can-i", "*", "*", "--all-namespaces") != "yes":
        pytest.skip("needs an administrator's kubeconfig: rights and policies are asked about")


@pytest.mark.usefixtures("_administrator")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_object_of_an_overlay(own: str, overlay: str) -> None:
    """It tells unknown and doubled fields too. A dry run, and by other names and in another namespace:
    what is there already could not be changed into what this overlay has."""
    if not answer("get", "crd", "clusterqueues.kueue.x-k8s.io", "-o", "name"):
        pytest.skip("no Kueue on the cluster: docs/cluster.md says how to install it")
    objects = objects_of(overlay)
    for one in objects:
        metadata = one["metadata"]
        if "namespace" in metadata:
            metadata["namespace"] = own
        else:
            metadata["name"] += f"-{own}"
    text = yaml.safe_dump_all(objects)
    said = ask("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
               stdin=text)  # fmt: skip
    assert len(said.splitlines()) == len(objects)


@pytest.fixture(scope="module")
def _installed(_administrator: None) -> None:
    if is_ours():
        apply_dev()
    elif not answer("get", "serviceaccount", "launcher", "-n", "headrace-system", "-o", "name"):
        pytest.skip("no overlay is installed on the cluster: kubectl apply --server-side -k ...")


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("user", "verb", "what", "namespace", "expected"),
    [
        ("headrace-system:launcher", "create", "jobs.batch", "headrace", "yes"),
        ("headrace-system:launcher", "create", "jobs.batch", "default", "no"),
        ("headrace-system:launcher", "create", "pods", "headrace", "no"),
        ("headrace-system:launcher", "create", "pods/exec", "headrace", "no"),
        ("headrace-system:launcher", "get", "secrets", "headrace-system", "no"),
        ("headrace-system:launcher", "patch", "nodes", "headrace", "no"),
        ("headrace-system:node-controller", "create", "pods/eviction", "headrace", "yes"),
        ("headrace-system:node-controller", "create", "pods/eviction", "kube-system", "no"),
        ("headrace-system:node-controller", "delete", "pods", "headrace", "no"),
        ("headrace-nodes:node-agent", "patch", "nodes/status", "headrace", "yes"),
        ("headrace-nodes:node-agent", "list", "pods", "headrace", "no"),
        ("headrace:stage", "get", "pods", "headrace", "no"),
    ],
)
def test_can_i(user: str, verb: str, what: str, namespace: str, expected: str) -> None:
    resource, _, subresource = what.partition("/")
    asked = ["auth", "can-i", verb, resource, "-n", namespace, f"--subresource={subresource}"]
    assert answer(*asked, f"--as=system:serviceaccount:{user}") == expected


@pytest.fixture(scope="module")
def place() -> tuple[str, str, str]:
    """A LocalQueue, its namespace, and an image with Python."""
    if is_ours():
        apply_dev()
        return "data", "headrace", IMAGE
    missing = [name for name in PLACE if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no Job is started, for these are not set: {', '.join(missing)}")
    queue, namespace, image = (os.environ[name] for name in PLACE)
    return queue, namespace, image


@pytest.mark.timeout(JOB_TIMEOUT_S + 60)
def test_a_stages_job_goes_through_the_queue_and_is_gone_after(place: tuple[str, str, str]) -> None:
    queue, namespace, image = place
    name = f"headrace-test-{uuid.uuid4().hex[:8]}"
    job = stage_job(name, queue, command=["python3", "-c", "print('it ran')"])
    job["metadata"]["namespace"] = namespace
    del job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"]  # their names are the cluster's
    pod = job["spec"]["template"]["spec"]
    pod["serviceAccountName"] = "default"  # it has no token of it
    pod["containers"][0]["image"] = image
    with created(job):
        done = ("--for=condition=Complete", f"--timeout={JOB_TIMEOUT_S}s")
        ask("wait", "job", name, "-n", namespace, *done)
        assert ask("logs", "-n", namespace, f"job/{name}") == "it ran\n"
        workloads = ask("get", "workloads", "-n", namespace, "-o", "name")
        assert f"job-{name}-" in workloads
    assert answer("get", "jobs,pods", "-n", namespace, "-o", "name").count(name) == 0
