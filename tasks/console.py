"""The console: a Prefect server, an MLflow server and the process that serves the deployments.

`headrace up` starts what does not run yet and returns. What was started is in
`.headrace/console/<service>.json`: the PID, and the process's start time beside it, for a PID alone
may by now be another's.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from components.errors import InfraError, UserError
from tasks import outcome
from tasks.config import Settings, home_root, with_defaults
from tasks.locks import locked
from tasks.process import end_group, end_orphans, is_running, started_ticks

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 45.0
"""Longer than Prefect gives a flow run to end."""
SERVING = "deployments"
"""The service that runs flows, in processes of its group."""
READY = "deployments.ready"
"""Written by the serving process once Prefect knows its deployments."""


@dataclass(frozen=True)
class Service:
    name: str
    command: tuple[str, ...]
    port: int | None
    """None: it listens nowhere."""
    url: str
    health: str | None
    """Answers 200 once the service is ready; None: it writes the file READY."""


@dataclass(frozen=True)
class Started:
    """One service that was started here."""

    name: str
    pid: int
    ticks: int
    """When the process was started, in clock ticks since boot."""
    url: str

    @property
    def is_running(self) -> bool:
        return is_running(self.pid, self.ticks)


def folder(root: Path) -> Path:
    return home_root(root) / ".headrace" / "console"


def services(root: Path, settings: Settings, given: Mapping[str, str]) -> list[Service]:
    """What `up` starts, in that order; a server that the environment `given` names is a team's own."""
    host, python = settings.host, sys.executable
    found = []
    if "PREFECT_API_URL" not in given:
        url = f"http://{host}:{settings.prefect_port}"
        command: tuple[str, ...] = (
            python, "-m", "prefect", "server", "start",
            "--host", host, "--port", str(settings.prefect_port),
        )  # fmt: skip
        found.append(Service("prefect", command, settings.prefect_port, url, f"{url}/api/health"))
    if "MLFLOW_TRACKING_URI" not in given:
        url = f"http://{host}:{settings.mlflow_port}"
        home = home_root(root)
        command = (
            python, "-m", "mlflow", "server", "--host", host, "--port", str(settings.mlflow_port),
            # Clients write files themselves: so a model's address is good without the server too.
            "--workers", "1", "--no-serve-artifacts",
        )  # fmt: skip
        # What a team gives, the server reads from the environment: it may hold a password.
        if not given.get("MLFLOW_BACKEND_STORE_URI"):
            command += ("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}")
        if not given.get("MLFLOW_DEFAULT_ARTIFACT_ROOT"):
            command += ("--default-artifact-root", (home / "mlruns").as_uri())
        found.append(Service("mlflow", command, settings.mlflow_port, url, f"{url}/health"))
    serve = (python, "-m", "flows.deployments")
    found.append(Service(SERVING, serve, None, "", None))
    return found


def up(root: Path, settings: Settings, given: Mapping[str, str]) -> list[Started]:
    """Start what does not run; return all. Raises UserError for a port in use, InfraError if one fails.

    A service that fails takes along what this call had started before it.
    """
    with _alone(root):
        wanted = services(root, settings, given)
        known = started(root)
        running = {item.name: item for item in known if item.is_running}
        for item in known:
            if item.name != SERVING:  # what it leaves are flow runs, which go on without it
                end_orphans(item.pid)  # workers of a killed server still hold its port
        for service in wanted:
            if service.name not in running and service.port is not None:
                _refuse_busy_port(settings.host, service)
        ours: list[Started] = []
        try:
            for is_server in (True, False):  # the flows are served to servers that answer
                environ = {**given, **urls([*running.values(), *ours])}
                missing = {
                    service.name: service
                    for service in wanted
                    if service.name not in running and (service.health is not None) == is_server
                }
                for service in missing.values():
                    ours.append(_start(root, service, with_defaults(environ, root)))  # noqa: PERF401  each counts at once
                # Also for servers that an `up` before this one, which was killed, has just started.
                waited = wanted if is_server and SERVING not in running else missing.values()
                there = {item.name: item for item in [*running.values(), *ours]}
                for service in waited:
                    if service.name in there:
                        _wait_until_ready(root, service, there[service.name])
        except BaseException:
            for item in reversed(ours):
                _stop(root, item)
            raise
        return [*running.values(), *ours]


def down(root: Path) -> list[Started]:
    """Stop what was started here, the serving process first; return what was running."""
    with _alone(root):
        items = started(root)
        running = [item for item in items if item.is_running]
        for item in sorted(items, key=lambda item: item.name):  # deployments, mlflow, prefect
            _stop(root, item)
        return running


def started(root: Path) -> list[Started]:
    """What `up` started and `down` did not stop; it may have died since."""
    found = []
    for path in sorted(folder(root).glob("*.json")):
        try:
            found.append(Started(**json.loads(path.read_text(encoding="utf-8"))))
        except (json.JSONDecodeError, TypeError):
            path.unlink()
    return found


def urls(items: list[Started]) -> dict[str, str]:
    """The variables that lead Prefect's and MLflow's clients to the running servers."""
    addresses = {item.name: item.url for item in items if item.is_running}
    found = {}
    if "prefect" in addresses:
        found["PREFECT_API_URL"] = f"{addresses['prefect']}/api"
    if "mlflow" in addresses:
        found["MLFLOW_TRACKING_URI"] = addresses["mlflow"]
    return found


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    folder(root).mkdir(parents=True, exist_ok=True)
    with locked(folder(root) / ".lock"):
        yield


def _refuse_busy_port(host: str, service: Service) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, service.port))
        except OSError as error:
            variable = f"HEADRACE_{service.name.upper()}_PORT"
            raise UserError(
                f"{service.name}: {host}:{service.port}: {error.strerror}",
                f"choose another: {variable}={(service.port or 0) + 1} make up",
            ) from error


def _start(root: Path, service: Service, environ: dict[str, str]) -> Started:
    (folder(root) / READY).unlink(missing_ok=True)
    with (folder(root) / f"{service.name}.log").open("wb") as log:
        process = subprocess.Popen(
            service.command, cwd=home_root(root), env=environ, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,  # so that it outlives us, and one signal ends its workers too
        )  # fmt: skip
    item = Started(service.name, process.pid, started_ticks(process.pid) or 0, service.url)
    outcome.write_json(folder(root) / f"{service.name}.json", asdict(item))
    return item


def _wait_until_ready(root: Path, service: Service, item: Started) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_ready(root, service):
        log = folder(root) / f"{service.name}.log"
        if not item.is_running:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise InfraError(f"{service.name} ended: {lines[-1] if lines else ''}", f"see {log}")
        if time.monotonic() > deadline:
            raise InfraError(f"{service.name}: not ready in {START_TIMEOUT_S:.0f} s", f"see {log}")
        time.sleep(0.2)


def _is_ready(root: Path, service: Service) -> bool:
    if service.health is None:
        return (folder(root) / READY).exists()
    return answers(service.health)


def answers(health: str) -> bool:
    """Whether the server at this address, one of our own, says that it is well."""
    try:
        with urllib.request.urlopen(health, timeout=5) as answer:  # noqa: S310  our own http address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(root: Path, item: Started) -> None:
    """SIGTERM to the process, then SIGKILL to what is left of its group."""
    if item.is_running:
        os.kill(item.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while item.is_running and time.monotonic() < deadline:
            _reap(item.pid)
            time.sleep(0.1)
        if item.is_running:
            end_group(item.pid, signal.SIGKILL)
            _reap(item.pid)
    end_orphans(item.pid)
    (folder(root) / f"{item.name}.json").unlink(missing_ok=True)


def _reap(pid: int) -> None:
    """A child that has ended stays a zombie until its parent, if that is us, asks for it."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
