"""The console with real servers: flows started, refused, cancelled and followed over Prefect's API."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import dead_flows
from tests.integration.tasks import toy
from tests.integration.tasks.processes import pods_of, wait_for

pytestmark = pytest.mark.timeout(600)


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
                with urllib.request.urlopen(request, timeout=30) as answer:
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

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.call(f"/flow_runs/{run}")["state"])

    def end_of(self, run: str) -> dict[str, Any]:
        final = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
        wait_for(lambda: self.state(run)["type"] in final, 180)
        return self.state(run)

    def of_run(self, run: str, what: str) -> list[dict[str, Any]]:
        """Its task runs, logs or artifacts."""
        key = {"task_runs": "flow_runs", "artifacts": "flow_runs"}[what]
        return list(self.call(f"/{what}/filter", {key: {"id": {"any_": [run]}}}))


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def console(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    running = Console(toy.copy(template, tmp_path_factory.mktemp("console") / "project"))
    said = running.headrace("up")
    assert said.returncode == 0, said.stdout
    try:
        yield running
    finally:
        running.headrace("down")


def test_a_second_up_changes_nothing_and_status_says_what_runs(console: Console) -> None:
    before = console.headrace("status").stdout
    assert console.headrace("up").stdout.splitlines().sort() == before.splitlines().sort()
    assert console.headrace("status").stdout == before
    assert [line.split()[0] for line in before.splitlines()] == ["deployments", "mlflow", "prefect"]


def test_a_port_in_use_is_one_line_and_starts_nothing(console: Console, tmp_path: Path) -> None:
    other = Console(toy.copy(console.project, tmp_path / "other"))
    subprocess.run(["rm", "-r", str(other.project / ".headrace" / "console")], check=True)
    said = other.headrace("up", **console.ports)
    assert said.returncode == 64
    assert "user error: prefect: 127.0.0.1:" in said.stdout
    assert "Address already in use" in said.stdout
    assert "HEADRACE_PREFECT_PORT=" in said.stdout
    assert other.headrace("status").stdout.strip() == "nothing runs: `headrace up`"


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"stages": ["lfet"]}, "'lfet' is not one of"),
        ({"force": "perhaps"}, "'perhaps' is not of type 'boolean'"),
        ({"overrides": {"others": [{"key": "left.txet", "value": "x"}]}}, "'left.txet' is not one"),
    ],
)
def test_the_form_refuses_a_wrong_value(
    console: Console, parameters: dict[str, object], fault: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        console.start("pipeline", **parameters)
    assert caught.value.code in (409, 422)
    assert fault in caught.value.read().decode()


def test_a_run_shows_its_stages_what_was_cached_and_how_far_it_came(console: Console) -> None:
    toy.set_param(console.project, "left", text="U")
    run = console.start("pipeline")
    assert console.end_of(run)["type"] == "COMPLETED", console.state(run)
    states = {task["name"]: task["state"]["name"] for task in console.of_run(run, "task_runs")}
    assert states == {
        "source": "Cached", "left": "Completed", "right": "Cached", "join": "Completed",
    }  # fmt: skip
    artifacts = {item["key"]: item for item in console.of_run(run, "artifacts")}
    assert artifacts["left-progress"]["data"] == 100.0
    assert "2/2 steps" in artifacts["left-progress"]["description"]
    mlflow = f"http://127.0.0.1:{console.ports['HEADRACE_MLFLOW_PORT']}/#/experiments/"
    assert mlflow in artifacts["pipeline-mlflow"]["data"]
    logs = console.call("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    assert any("left: 2/2 steps 100%" in entry["message"] for entry in logs)
    assert toy.text_of(console.project, "join") == "sUsrj"


def test_a_failure_is_in_the_runs_message_with_the_end_of_the_log(console: Console) -> None:
    toy.set_param(console.project, "right", fate="bug")
    state = console.end_of(console.start("pipeline"))
    toy.set_param(console.project, "right", fate="ok")
    assert state["type"] == "FAILED"
    assert "bug error: ZeroDivisionError: by zero" in state["message"]
    assert "Traceback" in state["message"]


def test_other_params_become_an_experiment_and_leave_the_project_alone(console: Console) -> None:
    before = (console.project / "dvc.lock").read_bytes(), toy.text_of(console.project, "join")
    others = [{"key": "left.text", "value": "X"}]
    run = console.start("pipeline", overrides={"others": others})
    assert console.end_of(run)["type"] == "COMPLETED", console.state(run)
    after = (console.project / "dvc.lock").read_bytes(), toy.text_of(console.project, "join")
    assert after == before
    (name,) = toy.dvc(console.project, "exp", "list", "--name-only").stdout.split()
    shown = json.loads(toy.dvc(console.project, "exp", "show", "--json").stdout)
    assert name in json.dumps(shown)
    toy.dvc(console.project, "exp", "apply", name)
    assert toy.text_of(console.project, "join") == "sXsrj"


def test_a_cancelled_run_stops_its_stage_and_a_new_run_finishes_the_job(console: Console) -> None:
    toy.set_param(console.project, "source", text="C", num_steps=600, step_s=0.05)
    run = console.start("one-stage", stage="source")
    wait_for(lambda: pods_of(console.project), 60)
    time.sleep(0.5)
    console.call(
        f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    )
    wait_for(lambda: not pods_of(console.project), 30)
    assert console.end_of(run)["type"] == "CANCELLED"
    toy.set_param(console.project, "source", text="C", num_steps=2, step_s=0.0)
    assert console.end_of(console.start("one-stage", stage="source"))["type"] == "COMPLETED"
    assert toy.text_of(console.project, "source") == "C"


def test_a_killed_flow_is_called_crashed_within_a_minute_and_a_stopped_one_is_not(
    console: Console,
) -> None:
    toy.set_param(console.project, "left", text="D", num_steps=600, step_s=0.05)
    flow = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "run"], cwd=console.project,
        env=toy.environment() | console.ports,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: pods_of(console.project), 60)
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (run,) = [item["id"] for item in console.call("/flow_runs/filter", running)]
    flow.send_signal(signal.SIGSTOP)
    time.sleep(2.5 * dead_flows.INTERVAL_S)
    assert console.state(run)["type"] == "RUNNING"
    flow.send_signal(signal.SIGCONT)
    flow.kill()
    flow.wait()
    wait_for(lambda: console.state(run)["type"] == "CRASHED", 60)
    assert f"process {flow.pid} on " in console.state(run)["message"]
    states = {task["name"]: task["state"]["type"] for task in console.of_run(run, "task_runs")}
    assert "RUNNING" not in states.values()
    assert states["left"] == "CRASHED"
    wait_for(lambda: not pods_of(console.project), 10)
    toy.set_param(console.project, "left", text="l", num_steps=2, step_s=0.0)
