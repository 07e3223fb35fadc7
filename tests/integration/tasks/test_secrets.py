"""Secrets are planted wherever a project meets them, and looked for wherever it writes."""

import os
import re
import select
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from flows.end import AWAY
from flows.run_here import NUM_RETRIES
from tasks.console import READY, answers
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import free_ports
from tests.integration.tasks.prefect_server import serving
from tests.integration.tasks.processes import pods_of, wait_for

SECRETS = {
    "HEADRACE_RATER_KEY": "planted-rater-key",
    "HEADRACE_RATER_URL": "https://jane:planted-rater-password@rater.example/v1?api_key=planted-query",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDID",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret",
    "HF_TOKEN": "hf_planted",
    "MLFLOW_TRACKING_USERNAME": "jane",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "PGPASSWORD": "planted-postgres",
    "FSSPEC_HTTPS": '{"client_kwargs": {"headers": {"Authorization": "Bearer planted-header"}}}',
    "PREFECT_API_AUTH_STRING": "jane:planted-prefect-password",
}
PLANTED = (b"planted", b"PLANTED")

TELLTALE = """

import logging
import os
from components.pool import map_ordered

def run(params, io, sink):
    everything = " ".join(os.environ.values())
    url = "https://jane:planted-address@data.example/a.txt?token=planted-token"
    print(everything)
    print(everything, file=sys.stderr)
    list(map_ordered(print, [everything] * 2, 2))
    sink.info(f"fetching {url}")
    logging.warning("fetching %s with %s", url, os.environ["HF_TOKEN"])
    raise ConnectionError(f"cannot connect to {url} with {os.environ['AWS_SECRET_ACCESS_KEY']}")
"""


def told(folder: Path) -> list[str]:
    """Files of the project, DVC's, MLflow's and Prefect's among them, that hold a planted secret."""
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return [
        str(path.relative_to(folder))
        for path in sorted(paths)
        if {".git", "components"}.isdisjoint(path.relative_to(folder).parts)
        and any(planted in content(path) for planted in PLANTED)
    ]


def content(path: Path) -> bytes:
    """Nothing of a file that is gone, as a database's journal is after each of its changes."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_what_a_stage_says_of_the_environments_secrets_reaches_no_file_of_dvc_mlflow_or_prefect(
    project: Path,
) -> None:
    (project / "mlflow.db").unlink()  # a store of its own, with its files below the project
    toy.add_code(project, "left", TELLTALE)
    done = toy.run(
        project, sys.executable, "-m", "tasks.cli", "stage", "left", check=False, **SECRETS
    )
    assert done.returncode == 70
    assert "cannot connect to https://***@data.example/a.txt?token=*** with ***" in done.stdout
    assert "planted" not in done.stdout.lower()
    fetching = "left: fetching https://***@data.example/a.txt?token=***"
    logs = project / "mlruns"
    wait_for(lambda: any(fetching in log.read_text() for log in logs.rglob("log.txt")))
    toy.run(project, "flock", "runs/.mirror.lock", "true")
    assert "cannot connect to" in prefects_database(project)
    assert told(project) == []


def prefects_database(project: Path) -> str:
    (path,) = (project / ".headrace" / "prefect").glob("*.db")
    return "".join(
        content(each).decode(errors="replace") for each in path.parent.glob(f"{path.name}*")
    )


def test_servers_that_are_away_are_named_without_their_passwords(project: Path) -> None:
    toy.set_param(project, "left", text="S")
    environ = SECRETS | {
        "MLFLOW_TRACKING_URI": "http://jane:planted-mlflow@127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "HEADRACE_FLOW_RUN": "none, and so no mirror in the background",
    }
    toy.run(project, sys.executable, "-m", "tasks.launch", "left", **environ)
    mirror = [sys.executable, "-m", "tasks.tracking", "--wait-s", "0"]
    done = wait_for(lambda: said_by(toy.run(project, *mirror, **environ)))
    assert "MLflow did not take the figures" in done
    assert "planted" not in done.lower()
    assert told(project) == []


def said_by(done: "subprocess.CompletedProcess[str]") -> str:
    """Empty where the mirror found another at work."""
    return done.stdout


@contextmanager
def mlflow_in(folder: Path) -> Iterator[str]:
    """The host and port of an MLflow server with its store in `folder`, while the body runs.

    It asks for no password, and takes one.
    """
    (port,) = free_ports(1)
    folder.mkdir()
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination", str(folder / "files"),
        ],
        cwd=folder, env=toy.environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def test_a_password_in_mlflows_address_is_in_no_log_where_mlflow_prints_where_its_runs_are(
    project: Path, tmp_path: Path
) -> None:
    toy.set_param(project, "left", text="S")
    with mlflow_in(tmp_path / "store") as place:
        environ = {"MLFLOW_TRACKING_URI": f"http://jane:planted-mlflow@{place}"}
        quiet = toy.run(project, sys.executable, "-m", "tasks.tracking", **environ)
        environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "false"
        done = toy.run(project, sys.executable, "-m", "tasks.cli", "stage", "left", **environ)
        toy.run(project, "flock", "runs/.mirror.lock", "true")
    said = (project / "runs" / "mirror.log").read_text()
    assert "View run" not in quiet.stdout
    assert f"View run left at: http://***@{place}/#/experiments/" in said
    assert "planted" not in done.stdout
    assert told(project) == told(tmp_path / "store") == []


class Gateway(socketserver.ThreadingTCPServer):
    """A proxy before the server on the port `behind`, which is away once the gateway `is_bad`.

    And for the next `num_refused` states that somebody sets.
    """

    daemon_threads = True

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.behind, self.is_bad, self.num_refused = behind, False, 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Gateway)
        if self.server.is_bad:
            self._refuse()
            return
        with socket.create_connection(("127.0.0.1", self.server.behind)) as other:
            ends = {self.request: other, other: self.request}
            while not self.server.is_bad:
                for end in select.select(list(ends), [], [], 0.1)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if self.server.num_refused and b"/set_state " in data.partition(b"\r\n")[0]:
                        self.server.num_refused -= 1
                        self._refuse()
                        return
                    ends[end].sendall(data)

    def _refuse(self) -> None:
        self.request.sendall(
            b"HTTP/1.1 502 Bad Gateway\r\nretry-after: 0.1\r\nconnection: close\r\n"
            b"content-length: 0\r\n\r\n"
        )
        self.request.shutdown(socket.SHUT_WR)
        while self.request.recv(65536):  # else what it still sends breaks the connection
            pass


@contextmanager
def gateway_to(api: str) -> Iterator[Gateway]:
    with Gateway(urlsplit(api).port or 80) as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        try:
            yield gateway
        finally:
            gateway.shutdown()


@pytest.mark.timeout(600)
def test_a_password_in_prefects_address_is_in_no_log_when_a_gateway_says_that_prefect_is_away(
    project: Path, tmp_path: Path
) -> None:
    toy.set_param(project, "left", text="S")
    log, ready = tmp_path / "deployments.log", project / ".headrace" / "console" / READY
    for folder in (ready.parent, tmp_path / "prefect"):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        serving(tmp_path / "prefect") as api,
        gateway_to(api) as gateway,
        log.open("wb") as file,
        ExitStack() as processes,
    ):
        place = f"127.0.0.1:{gateway.port}/api"
        environ = toy.environment() | {"PREFECT_API_URL": f"http://jane:planted-prefect@{place}"}

        def begin(*words: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=project, env=environ, stdout=file,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            processes.callback(process.wait)
            processes.callback(process.kill)  # before
            return process

        begin("flows.deployments")
        with toy.held(project):
            run = begin("tasks.cli", "stage", "left")
            wait_for(lambda: pods_of(project) and ready.exists())
            gateway.is_bad = True
        wait_for(lambda: run.poll() is not None)
        wait_for(lambda: re.search(r"headrace\.\w+ - .*502 Bad Gateway", log.read_text()))
    said = log.read_text()
    assert f"View at http://127.0.0.1:{gateway.port}/runs/flow-run/" in said
    assert f"server went away (Server error '502 Bad Gateway' for url 'http://{place}/" in said
    assert "planted" not in said
    assert told(project) == told(tmp_path / "prefect") == []


@pytest.mark.timeout(600)
def test_a_run_that_ends_while_prefect_is_away_for_a_moment_is_completed_and_tells_no_password(
    project: Path, tmp_path: Path
) -> None:
    """The engine takes it for a failure of the flow, and has its message and trace kept by the server."""
    toy.set_param(project, "left", text="S")
    (tmp_path / "prefect").mkdir()
    with serving(tmp_path / "prefect") as api, gateway_to(api) as gateway:
        address = f"http://jane:planted-prefect@127.0.0.1:{gateway.port}/api"
        with toy.held(project), ThreadPoolExecutor() as pool:
            command = (sys.executable, "-m", "tasks.cli", "stage", "left")
            run = pool.submit(toy.run, project, *command, check=False, PREFECT_API_URL=address)
            wait_for(lambda: pods_of(project), 180)
            gateway.num_refused = NUM_RETRIES + 1
            (project / "runs" / "hold").unlink()
            done = run.result()
            (project / "runs" / "hold").touch()
        with httpx.Client(base_url=api) as client:
            (state,) = (
                one["state"] for one in client.post("/flow_runs/filter", json={}).json()
            )  # fmt: skip
    assert gateway.num_refused == 0
    assert done.returncode == 0, done.stdout
    assert "the flow ended before" not in done.stdout
    assert (state["type"], state["message"]) == ("COMPLETED", AWAY)
    assert any(b"502 Bad Gateway" in content(path) for path in (tmp_path / "prefect").glob("*.db*"))
    assert told(project) == told(tmp_path / "prefect") == []
