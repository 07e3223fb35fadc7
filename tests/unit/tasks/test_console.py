"""What the console starts, by what the environment gives; and what it ends before that."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from components.errors import UserError
from tasks import console
from tasks.config import Settings, load_settings
from tasks.console import Service, Started, down, folder, services, up
from tasks.process import started_ticks

OURS = ("--backend-store-uri", "--default-artifact-root")


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, OURS),
        ({"MLFLOW_BACKEND_STORE_URI": ""}, OURS),
        ({"MLFLOW_BACKEND_STORE_URI": "postgresql://u:secret@host/db"}, OURS[1:]),
        ({"MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://bucket"}, OURS[:1]),
    ],
)
def test_a_store_of_a_teams_own_is_left_to_the_environment(
    tmp_path: Path, given: dict[str, str], options: tuple[str, ...]
) -> None:
    (mlflow,) = [one for one in services(tmp_path, load_settings(), given) if one.name == "mlflow"]
    assert tuple(word for word in OURS if word in mlflow.command) == options
    assert not any("secret" in word for word in mlflow.command)


def test_a_server_of_a_teams_own_is_not_started(tmp_path: Path) -> None:
    given = {"PREFECT_API_URL": "http://a/api", "MLFLOW_TRACKING_URI": "http://b"}
    assert [one.name for one in services(tmp_path, load_settings(), given)] == ["deployments"]


def test_a_serving_process_that_died_leaves_its_flow_runs_to_go_on(tmp_path: Path) -> None:
    """What a server left holds its port, and is ended before `up` looks whether the port is free."""
    folder(tmp_path).mkdir(parents=True)
    left = {name: orphan(tmp_path, name) for name in ("deployments", "mlflow")}
    with socket.create_server(("127.0.0.1", 0)) as busy:
        settings = Settings(prefect_port=busy.getsockname()[1])
        with pytest.raises(UserError, match=r"prefect: 127\.0\.0\.1"):
            up(tmp_path, settings, {"MLFLOW_TRACKING_URI": "http://b"})
    running = {name: started_ticks(pid) is not None for name, pid in left.items()}
    os.kill(left["deployments"], signal.SIGKILL)
    assert running == {"deployments": True, "mlflow": False}


SERVER = """
import http.server, sys, time
time.sleep(1.5)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
SERVES_FLOWS = """
import pathlib, sys, time, urllib.request
urllib.request.urlopen(sys.argv[1])
pathlib.Path(sys.argv[2]).touch()
time.sleep(60)
"""


def test_flows_are_served_to_a_server_that_answers_also_if_the_up_that_started_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    server = Service("prefect", (sys.executable, "-c", SERVER, str(port)), port, url, url)
    ready = str(folder(tmp_path) / console.READY)
    serve = (sys.executable, "-c", SERVES_FLOWS, url, ready)
    both = [server, Service(console.SERVING, serve, None, "", None)]
    monkeypatch.setattr(console, "services", lambda *_: both)
    folder(tmp_path).mkdir(parents=True)
    console._start(tmp_path, server, dict(os.environ))
    try:
        assert [item.is_running for item in up(tmp_path, Settings(), os.environ)] == [True, True]
    finally:
        down(tmp_path)


def orphan(root: Path, service: str) -> int:
    """The PID of a process whose group's leader, a service that `up` had started, is gone."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '20'], stdout=-3).pid)"
    leader = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    said = leader.communicate()[0]
    item = Started(service, leader.pid, 1, "")
    (folder(root) / f"{service}.json").write_text(json.dumps(asdict(item)))
    return int(said)
