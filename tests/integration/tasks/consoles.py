"""A toy project's console with real servers, and what a test asks it over Prefect's API."""

import json
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for

PORTS = range(15_000, 30_000)
_reserved: list[socket.socket] = []


class Console:
    """A toy project with its console running."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.ports = {
            f"HEADRACE_{name}_PORT": str(port)
            for name, port in zip(("PREFECT", "MLFLOW"), free_ports(2), strict=True)
        }
        self.api = f"http://127.0.0.1:{self.ports['HEADRACE_PREFECT_PORT']}/api"

    def headrace(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        command = (sys.executable, "-m", "tasks.cli", *words)
        return toy.run(self.project, *command, check=False, **(self.ports | variables))

    def call(self, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            self.api + path,
            None if body is None else json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        for _ in range(60):  # a busy server with SQLite asks to be asked again
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(1)
        raise AssertionError(f"{path}: the server stayed unavailable")

    def start(self, flow: str, **parameters: object) -> str:
        deployment = self.call(f"/deployments/name/{flow}/{flow}")
        run = self.call(
            f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters}
        )
        return str(run["id"])

    def cancel(self, run: str) -> None:
        """As the button does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.call(f"/flow_runs/{run}/set_state", {"state": state})

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.call(f"/flow_runs/{run}")["state"])

    def end_of(self, run: str) -> dict[str, Any]:
        final = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
        wait_for(lambda: self.state(run)["type"] in final, 300)
        return self.state(run)

    def of_run(self, run: str, what: str) -> list[dict[str, Any]]:
        """Its task runs, logs or artifacts."""
        key = {"task_runs": "flow_runs", "artifacts": "flow_runs"}[what]
        return list(self.call(f"/{what}/filter", {key: {"id": {"any_": [run]}}}))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, each this process's own among all tests on this machine.

    Below those that the kernel gives to whoever connects. The name that keeps one is no file: it
    goes with the process.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0headrace-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _reserved.append(name)
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free port")
