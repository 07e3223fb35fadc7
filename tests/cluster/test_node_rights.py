"""Which fields of a node agent, controller and people may change, asked of a real API server."""

import json
import uuid
from collections.abc import Iterator

import pytest

from tests.access import OPERATOR as OPERATORS_ACCOUNT
from tests.access import bindings_of_an_operator
from tests.cluster.overlay import (
    IMAGE,
    answer,
    apply_dev,
    ask,
    call,
    created,
    fake_node,
    get,
    until,
)
from tests.manifests import Object, name_of, objects_of, pod_of, workloads

AGENT = "system:serviceaccount:headrace-nodes:node-agent"
CONTROLLER = "system:serviceaccount:headrace-system:node-controller"
OPERATOR = f"system:serviceaccount:{':'.join(OPERATORS_ACCOUNT)}"


@pytest.fixture(scope="module", autouse=True)
def _applied() -> Iterator[None]:
    apply_dev()
    with created(*bindings_of_an_operator()):
        yield


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    name = f"rights-{uuid.uuid4().hex[:8]}"
    with created(fake_node(name, rack="r9", gpus=8, labels={})):
        until("the fake node is ready", lambda: get("node", name)["spec"]["taints"] == [GPU_TAINT])
        yield name


def refusal(user: str, node: str, patch: Object, *, at: str, subresource: str = "") -> str:
    """Why `user`, whose pod is on the node `at`, may not patch `node`; empty if it may. A dry run."""
    headers = {
        "Impersonate-User": user,
        "Impersonate-Group": "system:authenticated",
        "Content-Type": "application/strategic-merge-patch+json",
    }
    if at:
        headers["Impersonate-Extra-authentication.kubernetes.io%2Fnode-name"] = at
    path = f"/api/v1/nodes/{node}{'/' + subresource if subresource else ''}"
    said = call("PATCH", path, patch, dry_run=True, **headers)
    return "" if said["kind"] == "Node" else str(said["message"])


CONDITION = {
    "status": {"conditions": [{"type": "HeadraceHealthy", "status": "False", "reason": "Xid"}]}
}
NOTE = {"metadata": {"annotations": {"headrace.dev/health": "{}"}}}
GPU_TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
"""The fake node's own. A list of taints is written whole, so who adds one repeats the others."""
UNHEALTHY = {"key": "headrace.dev/unhealthy", "effect": "NoExecute"}
TAINT = {"spec": {"taints": [GPU_TAINT, UNHEALTHY]}}


OWNER = {"metadata": {"ownerReferences": [
    {"apiVersion": "v1", "kind": "Pod", "name": "none", "uid": "0"}]}}  # fmt: skip
"""One that is not there: the garbage collector would delete the node."""
FINALIZER = {"metadata": {"finalizers": ["other/finalizer"]}}
"""Nobody could delete the node."""


def test_an_agent_reports_its_own_node_and_no_other(node: str) -> None:
    for patch in (CONDITION, NOTE):
        assert refusal(AGENT, node, patch, at=node, subresource="status") == ""
        for elsewhere in ("dev-1", ""):
            said = refusal(AGENT, node, patch, at=elsewhere, subresource="status")
            assert "its own node alone" in said


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"metadata": {"labels": {"headrace.dev/gpu-pool": "h200"}}}, "no label"),
        ({"metadata": {"annotations": {"kwok.x-k8s.io/node": None}}}, "annotations of headrace"),
        ({"metadata": {"annotations": {"other/note": "x"}}}, "annotations of headrace"),
        ({"status": {"capacity": {"nvidia.com/gpu": "64"}}}, "conditions of a node"),
        ({"status": {"allocatable": {"cpu": "1"}}}, "conditions of a node"),
        ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, "named Headrace"),
        # Where the API server would look for the kubelet: who has that reads what people type there.
        (
            {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 9464}}}},
            "conditions of a node",
        ),
        (
            {"status": {"volumesAttached": [{"name": "other", "devicePath": ""}]}},
            "conditions of a node",
        ),
        (OWNER, "no owner"),
        (FINALIZER, "no owner"),
    ],
)
def test_an_agent_changes_nothing_else_of_its_nodes_status(
    node: str, patch: Object, said: str
) -> None:
    assert said in refusal(AGENT, node, patch, at=node, subresource="status")


@pytest.mark.parametrize("patch", [TAINT, NOTE, {"spec": {"unschedulable": True}}])
def test_an_agent_changes_nothing_of_its_node_but_the_status(node: str, patch: Object) -> None:
    assert 'cannot patch resource "nodes"' in refusal(AGENT, node, patch, at=node)


def test_the_controller_taints_cordons_and_labels_any_node(node: str) -> None:
    for patch in (
        TAINT,
        NOTE,
        {"spec": {"unschedulable": True}},
        {"metadata": {"labels": {"headrace.dev/state": "quarantined"}}},
    ):
        assert refusal(CONTROLLER, node, patch, at="dev-1") == ""


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (
            {"spec": {"taints": [GPU_TAINT, {"key": "mine", "effect": "NoExecute"}]}},
            "taints of headrace",
        ),
        ({"spec": {"taints": [UNHEALTHY]}}, "taints of headrace"),  # the GPU's would be gone
        ({"metadata": {"labels": {"topology.headrace.dev/rack": "r1"}}}, "labels of headrace"),
        ({"metadata": {"annotations": {"kwok.x-k8s.io/node": "real"}}}, "annotations of headrace"),
        ({"spec": {"providerID": "other://node"}}, "taints, and cordons"),
        (OWNER, "no owner"),
        (FINALIZER, "no owner"),
    ],
)
def test_the_controller_changes_nothing_else_of_a_node(node: str, patch: Object, said: str) -> None:
    assert said in refusal(CONTROLLER, node, patch, at="dev-1")


def note(name: str, value: str | None = "x") -> Object:
    return {"metadata": {"annotations": {name: value}}}


@pytest.mark.parametrize("what", ["headrace.dev/repaired-at", "headrace.dev/reset"])
def test_who_operates_nodes_reports_a_repair_or_a_reset_of_any(node: str, what: str) -> None:
    assert refusal(OPERATOR, node, note(what), at="") == ""


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (TAINT, "no label and no taint"),
        ({"spec": {"unschedulable": True}}, "no label and no taint"),
        ({"metadata": {"labels": {"headrace.dev/node-state": "healthy"}}}, "no label and no taint"),
        (note("headrace.dev/node-health"), "repaired-at and headrace.dev/reset alone"),
        (note("other/note"), "repaired-at and headrace.dev/reset alone"),
        (note("kwok.x-k8s.io/node", None), "repaired-at and headrace.dev/reset alone"),
        (OWNER, "no owner"),
        (FINALIZER, "no owner"),
    ],
)
def test_who_operates_nodes_changes_nothing_else_of_a_node(
    node: str, patch: Object, said: str
) -> None:
    assert said in refusal(OPERATOR, node, patch, at="")


def test_who_administers_the_cluster_is_not_held_to_an_operators_fields(node: str) -> None:
    for patch in (TAINT, {"metadata": {"labels": {"headrace.dev/gpu-pool": "h200"}}}):
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        said = call("PATCH", f"/api/v1/nodes/{node}", patch, dry_run=True, **headers)
        assert said["kind"] == "Node"


READ_LOG = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
text = ctypes.create_string_buffer(1 << 16)
print(libc.klogctl(3, text, len(text)) > 0)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")])
"""


def test_the_agents_container_reads_the_kernels_log_with_one_capability() -> None:
    """And the token of its pod names the node, on which admission-nodes.yaml relies."""
    (agent,) = (one for one in workloads(objects_of("dev")) if name_of(one) == "node-agent")
    template = pod_of(agent)
    (container,) = template["containers"]
    name = f"rights-{uuid.uuid4().hex[:8]}"
    script = "import time\n" + READ_LOG + "time.sleep(300)\n"
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "headrace-nodes"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "serviceAccountName": template["serviceAccountName"],
            "automountServiceAccountToken": True,
            "nodeName": "dev-1",
            "securityContext": template["securityContext"],
            "containers": [{
                "name": "agent", "image": IMAGE, "command": ["python3", "-c", script],
                "securityContext": container["securityContext"],
            }],
        },
    }  # fmt: skip
    with created(pod):
        until("the pod has said both", lambda: len(log_of(name)) >= 2)
        assert log_of(name) == ["True", "['0000000400000000']"]  # CAP_SYSLOG, number 34
        token = ask("exec", "-n", "headrace-nodes", name, "--", "cat",
                    "/var/run/secrets/kubernetes.io/serviceaccount/token")  # fmt: skip
        who = json.loads(ask("auth", "whoami", "-o", "json", f"--token={token}"))["status"][
            "userInfo"
        ]
    assert who["username"] == AGENT
    assert who["extra"]["authentication.kubernetes.io/node-name"] == ["dev-1"]


def log_of(pod: str) -> list[str]:
    return answer("logs", "-n", "headrace-nodes", pod).splitlines()
