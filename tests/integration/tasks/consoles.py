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

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
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
        return call(self.api + path, body)

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
        wait_for(lambda: self.state(run)["type"] in FINAL, 300)
        return self.state(run)

    def of_run(self, run: str, what: str) -> list[dict[str, Any]]:
        """Its task runs or artifacts."""
        return list(self.call(f"/{what}/filter", {"flow_runs": {"id": {"any_": [run]}}}))

    def tasks_of(self, run: str) -> dict[str, str]:
        """Name to state's name of its tasks, once all have ended.

        The server hears of them by events, and may enter the last one after the run's own end.
        """

        def ended() -> list[dict[str, Any]] | None:
            tasks = self.of_run(run, "task_runs")
            return tasks if all(task["state"]["type"] in FINAL for task in tasks) else None

        return {task["name"]: task["state"]["name"] for task in wait_for(ended)}

    def has_logged(self, run: str, text: str) -> bool:
        """Whether a line of its log has `text`; a flow sends its lines every two seconds."""
        body = {"logs": {"flow_run_id": {"any_": [run]}}}
        return any(text in line["message"] for line in self.call("/logs/filter", body))


def call(address: str, body: object = None) -> Any:
    """What Prefect's API answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    for _ in range(60):  # a busy server with SQLite asks to be asked again
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(1)
    raise AssertionError(f"{address}: the server stayed unavailable")


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
