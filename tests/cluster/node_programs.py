"""The programs that judge nodes, as processes with exactly the rights stated here."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tasks.cluster.api import Api

RIGHTS = {
    "controller": [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    ],
    "agent": [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ],
    "person": [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ],
}


class Started:
    """A program that can be killed and started again."""

    def __init__(self, command: list[str], environment: dict[str, str], log: str) -> None:
        self._command, self._environment, self._log = command, environment, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with Path(self._log).open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """As a node that loses power would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def said(self) -> str:
        return Path(self._log).read_text()


def wait_for(is_so: Callable[[], object], what: str, timeout_s: float = 120) -> None:
    """The limit is for a fault, not for a slow machine."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.1)


def grant(api: Api, name: str, role: str, rules: list[dict[str, Any]]) -> None:
    group = "rbac.authorization.k8s.io"
    api.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": role}})
    subject = {"kind": "ServiceAccount", "name": role, "namespace": name}
    api.create(
        f"/apis/{group}/v1/clusterroles", {"metadata": {"name": f"{name}-{role}"}, "rules": rules}
    )
    api.create(
        f"/apis/{group}/v1/clusterrolebindings",
        {
            "metadata": {"name": f"{name}-{role}"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": f"{name}-{role}"},
            "subjects": [subject],
        },
    )


def write_kubeconfig(api: Api, namespace: str, role: str, path: Path) -> None:
    token = api.create(
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{role}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
    )["status"]["token"]
    body = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for user in body["users"]:
        user["user"] = {"token": token}
    path.write_text(yaml.safe_dump(body))
    path.chmod(0o600)
