"""The overlay `dev` on a running cluster, and what tests do to it: only things with names of their own."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config

from tests.manifests import KUEUE, ROOT, Object, kubectl

IMAGE = "dev.local/headrace:dev"
VOLUME = Path("/var/lib/headrace")
UID = 1000
PATIENCE_S = 120.0
T = TypeVar("T")


def ask(*arguments: str, stdin: object = None) -> str:
    """What kubectl prints; fails the test with its complaint."""
    done = _run(arguments, stdin)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def answer(*arguments: str) -> str:
    """What kubectl prints, whether or not it is content: empty if it only complains."""
    return _run(arguments, None).stdout.strip()


def get(*arguments: str) -> Any:
    return json.loads(ask("get", "-o", "json", *arguments))


def refusal(one: Object, *arguments: str) -> str:
    """The API server's reason not to create `one`; empty if it would. Nothing is created."""
    done = _run(("create", "--dry-run=server", "-f", "-", *arguments), one)
    return "" if done.returncode == 0 else done.stderr


def _run(arguments: tuple[str, ...], stdin: object) -> "subprocess.CompletedProcess[str]":
    text = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
    return subprocess.run(
        [kubectl(), *arguments], input=text, capture_output=True, text=True, check=False
    )


def is_ours() -> bool:
    """Whether the cluster is the development cluster, and no one that somebody else has named."""
    return "HEADRACE_TEST_KUBECONFIG" not in os.environ


def apply_dev() -> None:
    """Idempotent; also makes the folder that both volumes lead to. Never on somebody else's cluster."""
    assert is_ours(), "the overlay dev would change what is installed on HEADRACE_TEST_KUBECONFIG"
    VOLUME.mkdir(exist_ok=True)
    os.chown(VOLUME, UID, UID)
    ask("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "k8s" / "overlays" / "dev"))


def call(
    method: str, path: str, body: object = None, *, dry_run: bool = False, **headers: str
) -> Object:
    """The API server's answer, also a refusal, as it is."""
    config.load_kube_config(os.environ["KUBECONFIG"])
    api = client.ApiClient()
    request = api.param_serialize(
        method, path, query_params=[("dryRun", "All")] if dry_run else [],
        header_params={"Accept": "application/json"} | headers, body=body,
        auth_settings=["BearerToken"],
    )  # fmt: skip
    content: Object = json.loads(api.call_api(*request).response.data)
    return content


def until(what: str, probe: Callable[[], T | None]) -> T:
    """The first answer of `probe` that is true; fails the test after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"not in {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.3)


@contextmanager
def created(*objects: Object) -> Iterator[None]:
    """`objects` on the server, and gone with all that they own after the body."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    ask("create", "-f", "-", stdin=listed)
    try:
        yield
    finally:
        _run(("delete", "--ignore-not-found", "--cascade=foreground", "-f", "-"), listed)


def stage_job(
    name: str, queue: str, *, command: list[str] | None = None, num_pods: int = 1, gpus: int = 0,
    priority: str = "research", volume: bool = False, **pod: Any,
) -> Object:  # fmt: skip
    """A Job as the namespace of the stages wants it."""
    requests = {"cpu": "50m", "memory": "64Mi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    limits = {key: value for key, value in requests.items() if key != "cpu"}
    container = {
        "name": "stage",
        "image": IMAGE,
        "command": command or ["true"],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "headrace", "mountPath": "/headrace"}] if volume else [],
    }
    claim = {"name": "headrace", "persistentVolumeClaim": {"claimName": "headrace"}}
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": "stage",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [claim] if volume else [],
    } | pod  # fmt: skip
    labels = {"kueue.x-k8s.io/queue-name": queue, "kueue.x-k8s.io/priority-class": priority}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "headrace", "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "completionMode": "Indexed",
            "parallelism": num_pods,
            "completions": num_pods,
            "template": {"metadata": {"labels": {"headrace.dev/stage": "test"}}, "spec": spec},
        },
    }


def workload_of(job: str) -> Object | None:
    """Kueue's view of a Job."""
    for one in get("workloads", "-n", "headrace")["items"]:
        if any(owner["name"] == job for owner in one["metadata"].get("ownerReferences", [])):
            return dict(one)
    return None


def condition(one: Object | None, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty texts if it has none."""
    for found in (one or {}).get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return found["status"], found.get("reason", ""), found.get("message", "")
    return "", "", ""


def fake_node(name: str, *, rack: str, gpus: int, labels: dict[str, str]) -> Object:
    """A node of KWOK's, tainted as GPU nodes are, so that nothing real is sent there."""
    size = {"cpu": "192", "memory": "2000Gi", "ephemeral-storage": "4000Gi", "pods": "110"}
    size |= {"nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/hostname": name,
                "topology.headrace.dev/block": "b9",
                "topology.headrace.dev/rack": rack,
            } | labels,
        },
        "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
        "status": {"capacity": size, "allocatable": size},
    }  # fmt: skip


def kueue_object(kind: str, name: str, **content: Any) -> Object:
    return {"apiVersion": KUEUE, "kind": kind, "metadata": {"name": name}, **content}
