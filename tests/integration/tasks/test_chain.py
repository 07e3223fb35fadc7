"""The chain from flow to pod, with real DVC, Prefect, MLflow and processes, on a toy project."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from prefect.states import Failed

from components.errors import DataError, InfraError, NodeUnhealthy, StageError, UserError
from tasks.run_dir import latest_run
from tasks.stage import BACKOFF_S, task_of, worth_retrying
from tests.integration.tasks import toy
from tests.integration.tasks.processes import started_run, wait_for

Flow = Callable[..., "subprocess.CompletedProcess[str]"]


def run_of(project: Path, stage: str) -> Path:
    run = latest_run(project, stage)
    assert run is not None
    return run


def outcome(project: Path, stage: str) -> dict[str, object]:
    return json.loads((run_of(project, stage) / "outcome.json").read_text())


@pytest.fixture
def flow(project: Path, prefect_api: str) -> Flow:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return toy.run(
            project, sys.executable, "-m", "tasks.cli", "run", *arguments, check=False,
            PREFECT_API_URL=prefect_api, **variables,
        )  # fmt: skip

    return run


def test_repro_with_nothing_changed_runs_no_stage(project: Path) -> None:
    assert "Running stage" not in toy.dvc(project, "repro").stdout


def test_a_changed_param_reruns_its_stage_and_what_follows_and_nothing_before(
    project: Path,
) -> None:
    toy.set_param(project, "left", text="L")
    said = toy.dvc(project, "repro").stdout
    assert [stage for stage in toy.STAGES if f"Running stage '{stage}'" in said] == ["left", "join"]
    assert toy.text_of(project, "join") == "sLsrj"


def test_params_diff_and_metrics_diff_see_the_change(project: Path) -> None:
    toy.set_param(project, "left", text="longer")
    toy.dvc(project, "repro")
    params = json.loads(toy.dvc(project, "params", "diff", "--json").stdout)
    assert params["params.yaml"]["left.text"] == {"old": "l", "new": "longer"}
    metrics = json.loads(toy.dvc(project, "metrics", "diff", "--json").stdout)
    assert metrics["reports/join.json"]["num_characters"] == {"old": 4, "new": 9, "diff": 5}


def test_an_experiment_runs_with_its_own_params_and_leaves_the_workspace_alone(
    project: Path,
) -> None:
    toy.dvc(project, "exp", "run", "--temp", "-n", "other", "-S", "left.text=E")
    assert toy.text_of(project, "join") == "slsrj"
    shown = toy.dvc(project, "exp", "show", "--json").stdout
    assert '"other"' in shown
    toy.dvc(project, "exp", "apply", "other")
    assert toy.text_of(project, "join") == "sEsrj"


def test_a_clean_clone_with_a_remote_restores_without_running_a_stage(
    project: Path, tmp_path: Path
) -> None:
    toy.dvc(project, "remote", "add", "-d", "store", str(tmp_path / "store"))
    toy.commit(project, "Add a remote")
    toy.dvc(project, "push", "--run-cache")
    for name, command in (("pulled", ("pull",)), ("reproduced", ("repro", "--pull"))):
        clone = tmp_path / name
        toy.run(tmp_path, "git", "clone", "-q", str(project), str(clone))
        said = toy.dvc(clone, *command).stdout
        assert "Running stage" not in said
        assert toy.text_of(clone, "join") == "slsrj"
        assert "Running stage" not in toy.dvc(clone, "repro").stdout


def test_the_environment_names_a_remote_that_stands_in_no_file(
    project: Path, tmp_path: Path
) -> None:
    ours = [sys.executable, "-m", "tasks.dvc_files"]
    remote = {"HEADRACE_DVC_REMOTE": str(tmp_path / "store"), "HEADRACE_FLOW_RUN": "none"}
    toy.dvc(project, "remote", "add", "-d", "files", str(tmp_path / "other"))
    toy.commit(project, "Add a remote")
    toy.run(project, *ours, "push", "--run-cache", **remote)
    assert not (tmp_path / "other").exists()
    clone = tmp_path / "clone"
    toy.run(tmp_path, "git", "clone", "-q", str(project), str(clone))
    said = toy.run(clone, *ours, "repro", "--pull", **remote).stdout
    assert "Running stage" not in said
    assert toy.text_of(clone, "join") == "slsrj"
    assert toy.run(clone, "git", "status", "--porcelain").stdout == ""
    assert not (clone / ".dvc" / "config.local").exists()


@pytest.mark.parametrize(
    ("fate", "kind", "exit_code"),
    [("user", "user", 64), ("data", "data", 65), ("bug", "bug", 70), ("killed", "infra", 75)],
)
def test_a_failure_keeps_its_kind_and_the_last_good_artifacts(
    project: Path, fate: str, kind: str, exit_code: int
) -> None:
    lock = (project / "dvc.lock").read_bytes()
    toy.set_param(project, "left", fate=fate)
    done = toy.dvc(project, "repro", check=False)
    assert done.returncode == 255
    assert f"left: {kind} error:" in done.stdout
    assert (outcome(project, "left")["kind"], outcome(project, "left")["exit_code"]) == (
        kind,
        exit_code,
    )
    assert (toy.text_of(project, "left"), toy.text_of(project, "join")) == ("sl", "slsrj")
    assert (project / "reports" / "left.json").exists()
    assert (project / "dvc.lock").read_bytes() == lock


def test_wrong_params_stop_everything_before_the_first_stage(project: Path) -> None:
    toy.set_param(project, "source", text="S")
    text = (project / "params.yaml").read_text().replace("join: {text: j,", "join: {txet: j,")
    (project / "params.yaml").write_text(text)
    said = toy.dvc(project, "repro", check=False).stdout
    assert "params.yaml: join.text: missing" in said
    assert "params.yaml: join.txet: unknown key" in said
    assert toy.text_of(project, "source") == "s"


def test_a_forced_run_computes_again(project: Path) -> None:
    before = outcome(project, "left")
    toy.dvc(project, "repro", "-f", "-s", "left")
    after = outcome(project, "left")
    assert after["attempt"] == 2
    assert after["started_at"] > before["started_at"]


def test_a_kill_between_publishing_and_dvcs_record_costs_no_second_run(project: Path) -> None:
    toy.set_param(project, "left", text="K")
    launched = toy.run(project, sys.executable, "-m", "tasks.launch", "left")
    assert "left: 2/2 steps" in launched.stdout
    said = toy.dvc(project, "repro").stdout
    assert "Running stage 'left'" in said
    assert "left: 2/2 steps" not in said
    assert toy.text_of(project, "join") == "sKsrj"
    wait_for((run_of(project, "left") / "mirror.json").exists)  # without a flow, too


def test_a_killed_dvc_takes_its_stage_with_it_and_the_next_run_finishes(project: Path) -> None:
    toy.set_param(project, "left", text="D")
    with toy.held(project):
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"], cwd=project, env=toy.environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        run_dir = wait_for(lambda: started_run(project / "runs" / "left"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for((run_dir / "outcome.json").exists)
    assert json.loads((run_dir / "outcome.json").read_text())["kind"] == "infra"
    toy.dvc(project, "repro")
    assert toy.text_of(project, "join") == "sDsrj"


def test_the_flow_runs_what_changed_and_calls_the_rest_cached(project: Path, flow: Flow) -> None:
    toy.set_param(project, "left", text="F")
    done = flow()
    assert done.returncode == 0, done.stdout[-3000:]
    (record,) = [
        json.loads(path.read_text())
        for path in (project / "runs" / "flows").glob("*.json")
        if "mirror" not in path.name
    ]
    assert {stage: state["name"] for stage, state in record["states"].items()} == {
        "source": "Cached",
        "left": "Completed",
        "right": "Cached",
        "join": "Completed",
    }
    assert toy.text_of(project, "join") == "sFsrj"


def test_branches_that_do_not_depend_on_each_other_run_side_by_side(
    project: Path, flow: Flow
) -> None:
    for stage in ("left", "right"):
        toy.set_param(project, stage, text="P")
    with ThreadPoolExecutor() as beside:
        with toy.held(project):
            running = beside.submit(flow)
            for stage in ("left", "right"):
                wait_for(lambda stage=stage: started_run(project / "runs" / stage))
            for stage in ("left", "right"):  # neither has ended while the other began
                assert started_run(project / "runs" / stage)
        assert running.result().returncode == 0
    assert toy.text_of(project, "join") == "sPsPj"


def test_the_flow_retries_the_infrastructures_failures_and_not_the_users(
    project: Path, flow: Flow
) -> None:
    toy.set_param(project, "left", fate='"infra once"')
    toy.set_param(project, "right", fate='"out of memory"')
    done = flow()
    assert done.returncode == 64
    left, right = outcome(project, "left"), outcome(project, "right")
    assert (left["kind"], left["attempt"]) == ("ok", 2)
    run = run_of(project, "left")
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert max(b - a for a, b in pairwise(line["at"] for line in lines)) > BACKOFF_S
    assert (run / "work" / "started").read_text() == "xx"  # the retry found what the first kept
    assert (right["kind"], right["attempt"]) == ("user", 1)
    assert "right  Failed     user error: right ran out of memory; make the model" in done.stdout
    assert toy.text_of(project, "join") == "slsrj"
    (path,) = [
        path for path in (project / "runs" / "flows").glob("*.json") if "mirror" not in path.name
    ]
    kind_message_hint, _, log = json.loads(path.read_text())["states"]["right"][
        "message"
    ].partition("\n\n")
    assert kind_message_hint == (
        "user error: right ran out of memory; make the model or the batch smaller"
    )
    assert log.splitlines()[-1].startswith("right: 2/2 steps 100%")


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (NodeUnhealthy("hot"), True),
        (InfraError("away"), True),
        (UserError("step 7: the loss is nan"), False),
        (DataError("empty"), False),
        (StageError("a bug"), False),
        (None, False),
    ],
)
def test_only_a_sick_node_and_the_infrastructure_are_tried_again(
    error: StageError | None, wanted: bool
) -> None:
    state = Failed(message="x", data=error)
    assert asyncio.run(worth_retrying(None, None, state)) is wanted
    task = task_of("left", 3)
    assert (task.name, task.retries, task.retry_delay_seconds) == ("left", 3, [5, 10, 20])
    assert task.retry_condition_fn is worth_retrying


def test_mlflow_has_one_run_a_stage_below_the_flows_own_with_params_metrics_and_pages(
    project: Path, flow: Flow
) -> None:
    toy.set_param(project, "source", text="M")
    assert flow().returncode == 0
    wait_for(lambda: all_mirrored(project))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("headrace")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["headrace.kind"] == "flow"]
    children = {
        run.data.tags["headrace.stage"]: run
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert set(children) == set(toy.STAGES)
    source = children["source"]
    assert source.data.params["source.text"] == "M"
    assert source.data.metrics["report/num_characters"] == 0
    assert source.info.status == parent.info.status == "FINISHED"
    assert [m.value for m in client.get_metric_history(source.info.run_id, "toy/step")] == [
        0.0,
        1.0,
    ]
    assert [f.path for f in client.list_artifacts(source.info.run_id, "reports")] == [
        "reports/page.html"
    ]
    tags = source.data.tags
    assert (
        tags["headrace.stage_key"]
        == json.loads((project / "runs" / "source" / "latest.json").read_text())["key"]
    )
    assert tags["dvc.artifacts.source"] in (project / "dvc.lock").read_text()
    assert tags["prefect.flow_run_id"] == parent.data.tags["headrace.flow_run"]
    assert len(tags["headrace.git_commit"].removesuffix("-dirty")) == 40


def all_mirrored(project: Path) -> bool:
    for request in (project / "runs").glob("*/*/request.json"):
        note = request.with_name("mirror.json")
        if not note.exists() or not json.loads(note.read_text())["lock_entry"]:
            return False
    notes = [json.loads(p.read_text()) for p in (project / "runs" / "flows").glob("*.mirror.json")]
    return bool(notes) and all(note["ended_at"] for note in notes)


def test_mlflow_being_down_delays_nothing_and_is_caught_up_later(project: Path, flow: Flow) -> None:
    toy.set_param(project, "join", text="down")
    assert flow(MLFLOW_TRACKING_URI="http://127.0.0.1:9").returncode == 0
    # The mirror that follows the flow gives up half a minute after it, which did not wait for that.
    is_free = toy.run(project, "flock", "-n", "runs/.mirror.lock", "true", check=False)
    assert is_free.returncode == 1
    toy.run(project, "flock", "runs/.mirror.lock", "true")
    toy.run(project, sys.executable, "-m", "tasks.tracking")
    assert all_mirrored(project)
