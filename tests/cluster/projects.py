"""The toy project on a cluster: its folder is the shared volume, and its code is what the pods run."""

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests import floors
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for, working_in

IMAGE = "dev.local/headrace:dev"
UID = 1000
PRIORITIES = {"production": 10000, "research": 1000, "background": 100}


def build(folder: Path) -> Path:
    """The toy project, with the code of the tasks and the pre-check: pods see nothing but it."""
    toy.build(folder)
    shutil.copytree(
        toy.ROOT / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(
        toy.ROOT / "components" / "preflight", folder / "components" / "preflight",
        ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True,
    )  # fmt: skip
    floors.write_without(folder / "components" / "preflight" / "skus.yaml")
    shutil.copy(toy.ROOT / "k8s" / "job.yaml", folder / "k8s" / "job.yaml")
    toy.commit(folder, "Bring what pods run")
    (folder / "runs").mkdir(exist_ok=True)
    (folder / "runs").chmod(0o777)  # the toy's stages note there who runs
    return folder


def copy(project: Path, folder: Path) -> Path:
    """`project` before anything ran in it, into `folder`."""
    shutil.copytree(project, folder, symlinks=True)
    return folder


def remove(folder: Path) -> None:
    """Once nothing works there: the mirror of a flow writes for a moment after its end, or its death.

    What a test that failed has left running is ended.
    """
    with suppress(AssertionError):
        wait_for(lambda: not working_in(folder), 60)
    for pid in working_in(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not working_in(folder))
    shutil.rmtree(folder)


def environment(folder: Path, namespace: str, kubeconfig: Path) -> dict[str, str]:
    return {
        "HEADRACE_LAUNCHER": "kubernetes",
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_IMAGE": IMAGE,
        "HEADRACE_DEV": "1",
        "HEADRACE_VOLUME": str(folder.parent),
        "KUBECONFIG": str(kubeconfig),
    }


def set_resources(folder: Path, stage: str = "", **values: object) -> None:
    """Change the default's or a stage's resources."""
    path = folder / "k8s" / "resources.yaml"
    document = yaml.safe_load(path.read_text())
    section = document["stages"].setdefault(stage, {}) if stage else document["default"]
    section |= values
    path.write_text(yaml.safe_dump(document))


def volume(folder: Path, namespace: str) -> list[dict[str, Any]]:
    """A volume on this machine's disk, and the namespace's claim of it."""
    size = {"storage": "10Gi"}
    return [
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"headrace-{namespace}"},
            "spec": {
                "capacity": size, "accessModes": ["ReadWriteMany"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": str(folder)},
                "claimRef": {"namespace": namespace, "name": "headrace"},
            },
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "headrace", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": size},
                "volumeName": f"headrace-{namespace}",
            },
        },
    ]  # fmt: skip


def queues(
    namespace: str, cpu: str = "2", memory: str = "16Gi", gpus: str = "2"
) -> list[dict[str, Any]]:
    """One flavor, one ClusterQueue for this namespace alone, and its LocalQueues."""
    group = "kueue.x-k8s.io/v1beta2"
    quotas = [
        {"name": "cpu", "nominalQuota": cpu}, {"name": "memory", "nominalQuota": memory},
        {"name": "ephemeral-storage", "nominalQuota": "200Gi"},
        {"name": "nvidia.com/gpu", "nominalQuota": gpus},
    ]  # fmt: skip
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return [
        {"apiVersion": group, "kind": "ResourceFlavor", "metadata": {"name": namespace}, "spec": {}},
        {
            "apiVersion": group, "kind": "ClusterQueue", "metadata": {"name": namespace},
            "spec": {
                "namespaceSelector": selector,
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [
                    {
                        "coveredResources": [one["name"] for one in quotas],
                        "flavors": [{"name": namespace, "resources": quotas}],
                    }
                ],
            },
        },
        *[
            {
                "apiVersion": group, "kind": "LocalQueue",
                "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterQueue": namespace},
            }
            for name in ("data", "foundation")
        ],
        *[
            {
                "apiVersion": group, "kind": "WorkloadPriorityClass", "metadata": {"name": name},
                "value": value,
            }
            for name, value in PRIORITIES.items()
        ],
    ]  # fmt: skip


def namespace(name: str) -> list[dict[str, Any]]:
    """A namespace as strict as the real one, with the account of stages."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stage", "namespace": name},
            "automountServiceAccountToken": False,
        },
    ]  # fmt: skip


@contextmanager
def lent(prefix: str, folder: Path) -> Iterator[str]:
    """A namespace with queues of its own, whose volume is `folder`; all of it goes with the body."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    folder.chmod(0o755)
    apply([*namespace(name), *queues(name), *volume(folder, name)])
    try:
        yield name
    finally:
        for kind, which in (
            ("namespace", name), ("persistentvolume", f"headrace-{name}"),
            ("clusterqueue", name), ("resourceflavor", name),
        ):  # fmt: skip
            kubectl("delete", kind, which, "--wait=false", check=False)


def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(
        ["kubectl", *arguments], input=stdin, text=True, capture_output=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def apply(objects: list[dict[str, Any]]) -> None:
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


def get(*arguments: str) -> Any:
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def kubeconfig() -> Path:
    return Path(os.environ["KUBECONFIG"])


def num_requests(namespace: str) -> int:
    """How often the launcher has asked the API server about `namespace`, by the server's own record.

    Our kubectl and the cluster's own parts are not counted. A watch counts once: the server notes its
    end too, a moment after whoever watched has gone.
    """
    from k8s.devcluster.servers import AUDIT_LOG
    from tasks.cluster.api import USER_AGENT

    asked = set()
    with AUDIT_LOG.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):  # it is being written, for somebody else
                break
            entry = json.loads(line)
            is_there = entry.get("objectRef", {}).get("namespace") == namespace
            if is_there and entry.get("userAgent") == USER_AGENT:
                asked.add(entry["auditID"])
    return len(asked)
