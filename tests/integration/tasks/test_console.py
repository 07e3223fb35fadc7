"""The console with real servers: flows started, refused, cancelled and followed.

First over Prefect's API, then by pressing the buttons in a browser.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tasks import flow_record, outcome
from tasks.flow_record import FlowRecord, record_path
from tasks.watch import run_url
from tests.integration.tasks import pages, toy
from tests.integration.tasks.consoles import Console
from tests.integration.tasks.processes import pods_of, started_run, wait_for, working_in

pytestmark = pytest.mark.timeout(600)
ENDED = {"source": "Cached", "left": "Completed", "right": "Cached", "join": "Completed"}
"""The tasks of a run for which `left` alone had changed."""


@pytest.fixture(scope="module")
def console(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    running = Console(toy.copy(template, tmp_path_factory.mktemp("console") / "project"))
    said = running.headrace("up")
    assert said.returncode == 0, said.stdout
    try:
        yield running
    finally:
        running.headrace("down")


@pytest.fixture(autouse=True)
def params_of_the_template(console: Console) -> Iterator[None]:
    """What a test sets in params.yaml goes with it, so that no test needs the one before it."""
    path = console.project / "params.yaml"
    before = path.read_bytes()
    yield
    path.write_bytes(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with pages.chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, console: Console) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1400, "height": 1100}) as context:
        context.set_default_timeout(pages.TIMEOUT_MS)
        opened = context.new_page()
        opened.goto(console.api.removesuffix("/api"))
        yield opened


def test_a_second_up_changes_nothing_and_status_says_what_runs(console: Console) -> None:
    before = console.headrace("status").stdout
    again = console.headrace("up").stdout
    assert sorted(filter(None, again.splitlines())) == sorted(before.splitlines())
    assert console.headrace("status").stdout == before
    assert [line.split()[0] for line in before.splitlines()] == ["deployments", "mlflow", "prefect"]


def test_a_port_in_use_is_one_line_and_starts_nothing(console: Console, project: Path) -> None:
    other = Console(project)
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
    with toy.held(console.project):
        run = console.start("pipeline")
        wait_for(lambda: page_in_mlflow(console, run))
    assert console.end_of(run)["type"] == "COMPLETED", console.state(run)
    assert console.tasks_of(run) == ENDED
    artifacts = {item["key"]: item for item in console.of_run(run, "artifacts")}
    assert artifacts["left-progress"]["data"] == 100.0
    assert "2/2 steps" in artifacts["left-progress"]["description"]
    mlflow = f"http://127.0.0.1:{console.ports['HEADRACE_MLFLOW_PORT']}/#/experiments/"
    assert str(page_in_mlflow(console, run)).startswith(mlflow)
    assert f"({page_in_mlflow(console, run)})" in artifacts["pipeline-mlflow"]["data"]
    wait_for(lambda: console.has_logged(run, "left: 2/2 steps 100%"))
    assert toy.text_of(console.project, "join") == "sUsrj"


def page_in_mlflow(console: Console, run: str) -> str | None:
    """None until the mirror has made it, which a flow run waits for at its end for a moment only."""
    return run_url(record_path(console.project, run).with_suffix(".mirror.json"))


def test_a_failure_is_in_the_runs_message_with_the_end_of_the_log(console: Console) -> None:
    toy.set_param(console.project, "right", fate="bug")
    state = console.end_of(console.start("pipeline"))
    assert state["type"] == "FAILED"
    assert "bug error: ZeroDivisionError: by zero" in state["message"]
    assert "Traceback" in state["message"]


def test_a_promotion_has_a_record_of_how_it_ended(console: Console) -> None:
    run = console.start("promote")
    assert console.end_of(run)["type"] == "FAILED"
    record = flow_record.read(flow_record.record_path(console.project, run))
    assert record is not None
    assert (record.flow, record.state) == ("promote", "FAILED")
    assert record.ended_at is not None


def test_runs_with_other_params_are_experiments_side_by_side_and_leave_the_project_alone(
    console: Console,
) -> None:
    before = (console.project / "dvc.lock").read_bytes(), toy.text_of(console.project, "join")
    runs = {
        text: console.start("pipeline", overrides={"others": [{"key": "left.text", "value": text}]})
        for text in "XY"
    }
    for run in runs.values():
        assert console.end_of(run)["type"] == "COMPLETED", console.state(run)
    after = (console.project / "dvc.lock").read_bytes(), toy.text_of(console.project, "join")
    assert after == before
    first, second = (console.call(f"/flow_runs/{run}") for run in runs.values())
    assert second["start_time"] < first["end_time"]
    names = toy.dvc(console.project, "exp", "list", "--name-only").stdout.split()
    assert len(names) == 2
    results = set()
    for name in names:
        toy.dvc(console.project, "exp", "apply", name)
        results.add(toy.text_of(console.project, "join"))
    assert results == {"sXsrj", "sYsrj"}


def test_a_cancelled_run_stops_its_stage_and_a_new_run_goes_on_from_its_checkpoint(
    console: Console,
) -> None:
    toy.set_param(console.project, "source", text="C", num_steps=10)
    with toy.held(console.project):
        run = console.start("one-stage", stage="source")
        attempt = wait_for(lambda: started_run(console.project / "runs" / "source"))
        wait_for(lambda: logged_steps(attempt) == [*range(5)])
        console.cancel(run)
        wait_for(lambda: not pods_of(console.project))
        assert console.end_of(run)["type"] == "CANCELLED"
    assert json.loads((attempt / "outcome.json").read_text())["kind"] == "infra"
    assert console.end_of(console.start("one-stage", stage="source"))["type"] == "COMPLETED"
    assert logged_steps(attempt) == [*range(10)]  # none of them twice
    assert json.loads((attempt / "outcome.json").read_text())["attempt"] == 2
    assert toy.text_of(console.project, "source") == "C"


def logged_steps(attempt: Path) -> list[int]:
    path = attempt / "metrics.jsonl"
    entries = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [entry["step"] for entry in entries if "step" in entry]


def test_a_killed_flow_is_called_crashed_and_a_stopped_one_is_not(console: Console) -> None:
    toy.set_param(console.project, "left", text="D")
    with toy.held(console.project):
        flow, run = run_in_a_terminal(console)
        flow.send_signal(signal.SIGSTOP)
        for _ in range(2):  # the second is found at a later look than the first
            let_a_dead_flow_be_found(console, run)
        assert console.state(run)["type"] == "RUNNING"
        flow.send_signal(signal.SIGCONT)
        flow.kill()
        flow.wait()
        wait_for(lambda: console.state(run)["type"] == "CRASHED", 60)
        assert f"process {flow.pid} on " in console.state(run)["message"]
        states = {task["name"]: task["state"]["type"] for task in console.of_run(run, "task_runs")}
        assert "RUNNING" not in states.values()
        assert states["left"] == "CRASHED"
        wait_for(lambda: not pods_of(console.project))


def let_a_dead_flow_be_found(console: Console, like: str) -> None:
    """Make one more run of the flow whose run `like` is, with a process that is gone; wait for its end."""
    flow_id = console.call(f"/flow_runs/{like}")["flow_id"]
    body = {"flow_id": flow_id, "state": {"type": "RUNNING", "name": "Running"}}
    run = str(console.call("/flow_runs/", body)["id"])
    record = FlowRecord(run, time.time(), os.uname().nodename, pid=os.getpid(), ticks=1)
    path = record_path(console.project, run)
    outcome.write_json(path, vars(record))
    wait_for(lambda: console.state(run)["type"] == "CRASHED")
    wait_for(lambda: told(path))  # which is written after the server has heard it
    path.unlink()


def told(path: Path) -> str:
    """The server that was told of the end of the flow run with this record; empty: none was."""
    record = flow_record.read(path)
    return record.told if record else ""


def test_a_run_goes_on_when_the_process_that_served_it_is_killed_and_replaced(
    console: Console,
) -> None:
    toy.set_param(console.project, "left", text="O")
    with toy.held(console.project):
        run, pods = served_by_a_process_that_is_gone(console)
        let_a_dead_flow_be_found(console, run)
        assert console.state(run)["type"] == "RUNNING"
        assert pods <= set(pods_of(console.project))
    assert console.end_of(run)["type"] == "COMPLETED", console.state(run)
    assert toy.text_of(console.project, "join") == "sOsrj"


def test_a_run_is_cancelled_that_another_process_served(console: Console) -> None:
    toy.set_param(console.project, "left", text="P")
    with toy.held(console.project):
        run, _ = served_by_a_process_that_is_gone(console)
        cancelled_with_its_stage(console, run)


def test_a_run_from_a_terminal_is_cancelled_also_when_it_is_stopped_there(
    console: Console,
) -> None:
    toy.set_param(console.project, "left", text="Q")
    with toy.held(console.project):
        for is_stopped in (False, True):
            flow, run = run_in_a_terminal(console)
            if is_stopped:
                flow.send_signal(signal.SIGSTOP)
            cancelled_with_its_stage(console, run)
            assert (flow.wait() == -signal.SIGKILL) == is_stopped


def served_by_a_process_that_is_gone(console: Console) -> tuple[str, set[int]]:
    """A flow run in the middle of a stage, and its pods; another process serves by now."""
    run = console.start("pipeline")
    wait_for(lambda: pods_of(console.project))
    pods = set(pods_of(console.project))
    (serving,) = working_in(console.project, "-m flows.deployments")
    os.kill(serving, signal.SIGKILL)
    wait_for(lambda: serving not in working_in(console.project))
    assert console.headrace("up").returncode == 0
    return run, pods


def run_in_a_terminal(console: Console) -> "tuple[subprocess.Popen[bytes], str]":
    """The process and the id of a flow run in the middle of a stage."""
    flow = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "run"], cwd=console.project,
        env=toy.environment() | console.ports,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: pods_of(console.project))
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (run,) = [str(item["id"]) for item in console.call("/flow_runs/filter", running)]
    return flow, run


def cancelled_with_its_stage(console: Console, run: str) -> None:
    console.cancel(run)
    wait_for(lambda: not pods_of(console.project))
    wait_for(lambda: console.state(run)["type"] == "CANCELLED")
    tasks = {task["name"]: task["state"]["type"] for task in console.of_run(run, "task_runs")}
    assert not {"PENDING", "RUNNING"} & set(tasks.values()), tasks


def test_a_run_started_with_the_buttons_ends_before_ones_eyes_and_its_artifacts_open(
    console: Console, page: Page, tmp_path: Path
) -> None:
    assert console.headrace("run").returncode == 0  # so that `left` alone has changed
    toy.set_param(console.project, "left", text="B", num_steps=60)
    pages.open_form(page, "pipeline")
    with toy.held(console.project):
        pages.submit(page)
        expect(page.get_by_text("Running", exact=True).first).to_be_visible()
        expect(page.get_by_text("/60 steps").first).to_be_visible()
        run_id = page.url.split("?")[0].split("/")[-1]
        wait_for(lambda: page_in_mlflow(console, run_id))
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    wait_for(lambda: console.has_logged(run_id, "left: 60/60 steps 100%"))
    assert console.tasks_of(run_id) == ENDED
    page.reload()  # Prefect's page asks for no more lines once the run has ended
    expect(page.get_by_text("60/60 steps 100%").first).to_be_visible()
    pages.shoot(page, "run", tmp_path)
    run = page.url
    pages.see_tasks(page, ENDED)
    pages.open_artifact(page, "left-progress")
    expect(page.get_by_text("left: 60/60 steps 100%").first).to_be_visible()
    expect(page.get_by_text("Progress: 100%").first).to_be_visible()
    pages.shoot(page, "progress", tmp_path)
    page.goto(run)
    pages.open_artifact(page, "pipeline-mlflow")
    page.get_by_role("link", name="pipeline in MLflow").click()
    expect(page.get_by_text(run_id).first).to_be_visible()
    pages.shoot(page, "mlflow", tmp_path)


def test_the_form_says_a_bound_and_shows_what_is_wrong_with_a_value_that_breaks_it(
    page: Page, tmp_path: Path
) -> None:
    pages.open_form(page, "pipeline")
    expect(page.get_by_text("the form has a field for it; above 0")).to_be_visible()
    page.get_by_role("button", name="Select stages").click()
    expect(page.get_by_role("option")).to_have_text(list(toy.STAGES))
    page.keyboard.press("Escape")
    page.get_by_role("spinbutton", name="dpo.beta").fill("0")
    page.get_by_role("button", name="Submit").click()
    expect(
        page.get_by_text("0 is less than or equal to the minimum of 0", exact=True)
    ).to_be_visible()
    pages.shoot(page, "refused", tmp_path)
    assert page.url.split("?")[0].endswith("/run")


def test_a_run_cancelled_in_its_menu_stops_its_stage(
    console: Console, page: Page, tmp_path: Path
) -> None:
    toy.set_param(console.project, "source", text="M", num_steps=60)
    pages.open_form(page, "one-stage")
    page.get_by_role("button", name="Select stage").click()
    page.get_by_role("option", name="source").click()
    with toy.held(console.project):
        pages.submit(page)
        expect(page.get_by_text("/60 steps").first).to_be_visible()
        page.get_by_role("main").get_by_role("button", name="Open menu").click()
        page.get_by_role("menuitem", name="Cancel").click()
        page.get_by_role("alertdialog").get_by_role("button", name="Cancel Flow Run").click()
        expect(page.get_by_text("Cancelled", exact=True).first).to_be_visible()
        pages.shoot(page, "cancelled", tmp_path)
        wait_for(lambda: not pods_of(console.project))


def test_the_result_is_a_page_with_its_table_and_its_picture(
    console: Console, page: Page, tmp_path: Path
) -> None:
    pages.write_result(tmp_path / "artifacts" / "evaluate")
    show = (
        "from prefect import flow; from tasks.watch import show_result; "
        "flow(show_result, flow_run_name='shown')(%r)"
    )
    toy.run(
        console.project, sys.executable, "-c", show % str(tmp_path),
        PREFECT_API_URL=console.api, PREFECT_HOME=str(tmp_path),
    )  # fmt: skip
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("link", name="shown", exact=True).click()
    pages.open_artifact(page, "results")
    expect(
        page.get_by_role("cell", name="2.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1")
    ).to_be_visible()
    picture = page.get_by_role("img", name="results")
    expect(picture).to_be_visible()
    expect(picture).to_have_js_property("naturalWidth", 64)
    pages.shoot(page, "result", tmp_path)
