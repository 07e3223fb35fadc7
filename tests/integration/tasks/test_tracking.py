"""What MLflow holds of `runs/`, with a real store: after kills, hiccups, deletions and moves."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from tasks import mirror, outcome
from tasks.mirror import Round, mirror_all
from tasks.mirror_note import Sent
from tasks.outcome import Outcome
from tasks.process import started_ticks
from tasks.publish import LOCK
from tasks.run_dir import Latest, write_latest

OVER = Round(0, [])


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path


def client_of(root: Path, empty_store: Path, name: str = "mlflow.db") -> MlflowClient:
    shutil.copy(empty_store, root / name)
    return MlflowClient(f"sqlite:///{root / name}")


@pytest.fixture
def client(root: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    client = client_of(root, empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    return client


def ask(root: Path, stage: str = "left", **values: Any) -> Path:
    """A run folder with a request in it, which nobody works on."""
    run_dir = root / "runs" / stage / "k"
    run_dir.mkdir(parents=True, exist_ok=True)
    request = {
        "stage": stage, "key": f"{stage}-key", "params": {"seed": 1, stage: {"text": "l"}},
        "attempt": 1, "flow_run": "", "flow_runs": [], "git_commit": "c", "workspace": str(root),
        "begun_at": 100.25, "requested_at": 100.25,
    }  # fmt: skip
    outcome.write_json(run_dir / "request.json", request | values)
    return run_dir


def end(run_dir: Path, kind: str = "ok", attempt: int = 1, started_at: float = 101.0) -> None:
    message = "" if kind == "ok" else "the store was away"
    outcome.write(
        run_dir, Outcome("left", "k", kind, 0, message, "", "here", attempt, started_at, 2.0, 0.5)
    )


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """As while someone works on the attempt."""
    with (run_dir / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def log(run_dir: Path, *steps: int) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        for step in steps:
            file.write(
                json.dumps({"at": 100.0 + step, "step": step, "metrics": {"loss": step}}) + "\n"
            )


def record(root: Path, flow_run: str, **values: Any) -> Path:
    path = root / "runs" / "flows" / f"{flow_run}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    outcome.write_json(
        path,
        {
            "id": flow_run, "stages": ["left"], "started_at": 99.0, "workspace": str(root),
            "git_commit": "c", "node": os.uname().nodename, "pid": os.getpid(),
            "ticks": started_ticks(os.getpid()),
            "states": {"left": {"name": "Completed", "message": "", "kind": "ok"}},
            "ended_at": 110.0, "state": "FINISHED",
        } | values,
    )  # fmt: skip
    return path


def runs(client: MlflowClient, view: int = ViewType.ACTIVE_ONLY, **tags: str) -> list[Run]:
    experiment = client.get_experiment_by_name("headrace")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], run_view_type=view)
    return [
        run
        for run in found
        if all(run.data.tags.get(f"headrace.{name}") == value for name, value in tags.items())
    ]


def note(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "mirror.json").read_text())
    return found


class Hiccup(MlflowClient):
    """MLflow with one call that fails."""

    def __init__(self, uri: str, call: str) -> None:
        super().__init__(uri)

        def fail(*arguments: Any, **options: Any) -> None:
            raise MlflowException("a hiccup")

        setattr(self, call, fail)


@pytest.mark.parametrize("call", ["log_batch", "set_terminated", "log_artifact", "log_artifacts"])
def test_a_call_that_fails_in_every_round_makes_no_second_run_and_is_caught_up(
    root: Path, client: MlflowClient, call: str
) -> None:
    run_dir = ask(root)
    log(run_dir, 0, 1)
    (run_dir / "log.txt").write_text("a line")
    (run_dir / "reports").mkdir()
    (run_dir / "reports" / "page.html").write_text("a page")
    end(run_dir)
    for _ in range(3):
        said = mirror_all(Hiccup(client.tracking_uri, call), root)
        assert said == Round(1, ["runs/left/k: MlflowException: a hiccup"])
    assert mirror_all(client, root) == OVER
    (run,) = runs(client)
    assert run.data.params == {"seed": "1", "left.text": "l"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 1.0)]
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 100250, 103000)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["log.txt", "reports"]


def test_a_kill_between_making_the_run_and_noting_it_gives_one_run(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, path = ask(root), record(root, "f")
    end(run_dir)

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mirror.outcome, "write_json", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                mirror_all(client, root)
    assert not path.with_suffix(".mirror.json").exists()
    assert mirror_all(client, root) == OVER
    (run_dir / "mirror.json").unlink()
    assert mirror_all(client, root) == OVER
    assert [len(runs(client, kind=kind)) for kind in ("flow", "stage")] == [1, 1]


def test_what_goes_on_after_a_failure_is_the_same_run_with_its_last_end_and_every_flow_run(
    root: Path, client: MlflowClient
) -> None:
    first, second = record(root, "first", state="FAILED"), record(root, "second", started_at=104.0)
    run_dir = ask(root, flow_run="first", flow_runs=["first"])
    log(run_dir, 0, 1)
    end(run_dir, "infra")
    assert mirror_all(client, root) == OVER
    (run,) = runs(client, kind="stage")
    assert (run.info.status, run.data.tags["headrace.outcome"]) == ("FAILED", "infra")
    assert (
        run.data.tags["mlflow.parentRunId"]
        == json.loads(first.with_suffix(".mirror.json").read_text())["run_id"]
    )

    ask(root, flow_run="second", flow_runs=["first", "second"], attempt=2, requested_at=105.0)
    with held(run_dir):
        assert mirror_all(client, root) == Round(1, [])
    (run,) = runs(client, kind="stage")
    assert run.info.status == "RUNNING"
    log(run_dir, 2)
    end(run_dir, attempt=2, started_at=106.0)
    (root / "dvc.lock").write_text("stages: {left: {outs: [{path: artifacts/left, md5: abc}]}}\n")
    write_latest(root, "left", Latest("left-key", published=True))
    assert mirror_all(client, root) == OVER
    (run,) = runs(client, kind="stage")
    assert (run.info.status, run.info.end_time) == ("FINISHED", 108000)
    tags = run.data.tags
    assert tags["dvc.artifacts.left"] == "abc"
    assert (tags["headrace.outcome"], tags["headrace.message"], tags["headrace.attempt"]) == (
        "ok",
        "",
        "2",
    )
    assert tags["headrace.flow_runs"] == "first,second"
    assert tags["prefect.flow_run_id"] == "second"
    assert (
        tags["mlflow.parentRunId"]
        == json.loads(second.with_suffix(".mirror.json").read_text())["run_id"]
    )
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    assert steps == [0, 1, 2]


def test_computing_again_from_the_start_is_another_run(root: Path, client: MlflowClient) -> None:
    run_dir = ask(root)
    log(run_dir, 0, 1, 2)
    end(run_dir)
    mirror_all(client, root)
    (run_dir / "metrics.jsonl").unlink()
    ask(root, attempt=2, begun_at=200.0, requested_at=200.0)
    log(run_dir, 0)
    mirror_all(client, root)  # launch has not removed the older outcome yet
    end(run_dir, attempt=2)
    mirror_all(client, root)
    told = {run.data.tags["headrace.begun_at"]: run for run in runs(client)}
    assert {begun: run.info.status for begun, run in told.items()} == {
        "100.25": "FINISHED", "200.0": "FINISHED",
    }  # fmt: skip
    histories = [client.get_metric_history(run.info.run_id, "loss") for run in told.values()]
    assert sorted(len(history) for history in histories) == [1, 3]


def test_one_run_that_fails_holds_up_no_other(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("join", "left", "source"):
        end(ask(root, stage))
    send = mirror.mlflow_run.send_end

    def fail(client: MlflowClient, run_id: str, run_dir: Path, *rest: Any) -> None:
        if run_dir.parent.name == "join":
            raise OSError("the bucket is away")
        send(client, run_id, run_dir, *rest)

    monkeypatch.setattr(mirror.mlflow_run, "send_end", fail)
    assert mirror_all(client, root) == Round(1, ["runs/join/k: OSError: the bucket is away"])
    assert {run.info.run_name: run.info.status for run in runs(client)} == {
        "join": "RUNNING", "left": "FINISHED", "source": "FINISHED",
    }  # fmt: skip


def test_mlflow_being_away_ends_the_round(root: Path, client: MlflowClient) -> None:
    end(ask(root))
    away = Hiccup(client.tracking_uri, "log_batch")
    mirror_all(client, root)
    ask(root, attempt=2, git_commit="d")
    away.get_experiment = away.log_batch  # type: ignore[method-assign]
    with pytest.raises(MlflowException, match="a hiccup"):
        mirror_all(away, root)


def test_a_run_that_someone_deleted_stays_deleted_and_the_rest_is_mirrored(
    root: Path, client: MlflowClient
) -> None:
    run_dir = ask(root)
    with held(run_dir):
        mirror_all(client, root)
        client.delete_run(note(run_dir)["run_id"])
        log(run_dir, 0)
        end(ask(root, "source"))
        assert mirror_all(client, root) == OVER
    end(run_dir)
    assert mirror_all(client, root) == OVER
    assert [run.info.run_name for run in runs(client)] == ["source"]
    assert note(run_dir)["deleted"]
    ask(root, begun_at=200.0, attempt=2)
    end(run_dir, attempt=2)
    mirror_all(client, root)
    assert sorted(run.info.run_name for run in runs(client)) == ["left", "source"]


@pytest.mark.parametrize("move", ["another address", "wiped", "wiped while it runs"])
def test_another_store_gets_everything_anew(
    root: Path, client: MlflowClient, empty_store: Path, move: str
) -> None:
    record(root, "f")
    run_dir = ask(root, flow_run="f", flow_runs=["f"])
    log(run_dir, 0, 1)
    if move != "wiped while it runs":
        end(run_dir)
    mirror_all(client, root)
    time.sleep(0.01)  # the experiments differ by the time they were made, in ms
    if move == "another address":
        client = client_of(root, empty_store, "other.db")
    else:
        client = _wiped(root, empty_store)
    end(run_dir)
    assert mirror_all(client, root) == OVER
    (flow,), (stage,) = runs(client, kind="flow"), runs(client, kind="stage")
    assert stage.data.tags["mlflow.parentRunId"] == flow.info.run_id
    assert stage.info.status == flow.info.status == "FINISHED"
    assert len(client.get_metric_history(stage.info.run_id, "loss")) == 2


def _wiped(root: Path, empty_store: Path) -> MlflowClient:
    """The same address with nothing behind it; MLflow keeps a store open by its address."""
    import sqlite3

    with sqlite3.connect(empty_store) as empty, sqlite3.connect(root / "mlflow.db") as full:
        empty.backup(full)
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def test_an_attempt_that_nobody_works_on_was_killed_and_runs_again_when_it_goes_on(
    root: Path, client: MlflowClient
) -> None:
    run_dir = ask(root)
    log(run_dir, 0)
    for name in ("request.json", "metrics.jsonl"):
        os.utime(run_dir / name, (107, 107))
    with held(run_dir):
        assert mirror_all(client, root).num_open == 1
    assert mirror_all(client, root) == OVER
    (run,) = runs(client)
    assert (run.info.status, run.info.end_time) == ("KILLED", 107000)
    ask(root, attempt=2)
    with held(run_dir):
        assert mirror_all(client, root).num_open == 1
        (run,) = runs(client)
        assert run.info.status == "RUNNING"
        end(run_dir, attempt=2)
    assert mirror_all(client, root) == OVER
    (run,) = runs(client)
    assert run.info.status == "FINISHED"


def test_a_flow_whose_process_is_gone_was_killed(root: Path, client: MlflowClient) -> None:
    path = record(root, "f", ended_at=None, state="RUNNING", states={}, ticks=1)
    assert mirror_all(client, root) == OVER
    (run,) = runs(client)
    assert run.info.status == "KILLED"
    assert mirror.flow_record.has_ended(path)


def test_a_flow_without_stages_has_no_run(root: Path, client: MlflowClient) -> None:
    record(root, "f", flow="promote")
    assert mirror_all(client, root) == OVER
    assert runs(client) == []


def test_a_flow_of_another_machine_is_not_called_dead(root: Path, client: MlflowClient) -> None:
    path = record(root, "f", ended_at=None, state="RUNNING", states={}, ticks=1, node="elsewhere")
    assert mirror_all(client, root).num_open == 1
    (run,) = runs(client)
    assert run.info.status == "RUNNING"
    assert not mirror.flow_record.has_ended(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"id": "x"}', "\x00\x00", "\udcff"])
def test_files_that_are_cut_off_or_of_another_version_hold_up_nothing(
    root: Path, client: MlflowClient, text: str
) -> None:
    torn = text.encode("utf-8", "surrogateescape")
    record(root, "torn").write_bytes(torn)
    (ask(root, "join") / "request.json").write_bytes(torn)
    run_dir = ask(root)
    for name in ("mirror.json", "report.json"):
        (run_dir / name).write_bytes(torn)
    (run_dir / "metrics.jsonl").write_bytes(torn + b'\n{"at": 1, "step": 2, "metrics": {"a": 3}}\n')
    end(run_dir)
    record(root, "newer", field="unknown")
    record(root, "whole").with_suffix(".mirror.json").write_bytes(torn)
    assert mirror_all(client, root).num_open == 0
    (run,) = runs(client, kind="stage")
    assert (run.info.status, run.data.metrics["a"]) == ("FINISHED", 3.0)
    (flow,) = runs(client, kind="flow")
    assert flow.data.tags["headrace.flow_run"] == "whole"


def test_what_was_sent_whole_is_not_opened_again_until_a_file_of_it_or_the_store_changes(
    root: Path, client: MlflowClient, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, failed, unfinished = record(root, "f"), ask(root), ask(root, "join")
    end(failed, "infra")
    opened: list[str] = []
    read_request, read_record = mirror.read_request, mirror.flow_record.read

    def request(run_dir: Path) -> dict[str, Any]:
        opened.append(run_dir.parent.name)
        return read_request(run_dir)

    def flow(record: Path) -> Any:
        opened.append(record.stem)
        return read_record(record)

    monkeypatch.setattr(mirror, "read_request", request)
    monkeypatch.setattr(mirror.flow_record, "read", flow)

    def round_opens(sent: Sent, by: MlflowClient = client) -> set[str]:
        opened.clear()
        mirror_all(by, root, sent)
        return set(opened)

    sent: Sent = {}
    with held(unfinished):
        assert round_opens(sent) == {"f", "left", "join"}
        assert round_opens(sent) == {"join"}
        assert round_opens({}) == {"f", "left", "join"}
        ask(root, attempt=2)
        assert round_opens(sent) == {"left", "join"}
        end(failed, "bug", attempt=2)
        (failed / "mirror.json").unlink()
        assert round_opens(sent) == {"left", "join"}
        assert round_opens(sent) == {"join"}
        os.utime(path)
        assert round_opens(sent) == {"f", "join"}
        other = client_of(root, empty_store, "other.db")
        assert round_opens(sent, other) == {"f", "left", "join"}
        assert round_opens(sent, other) == {"join"}


def test_a_deleted_experiment_is_one_line(root: Path, client: MlflowClient) -> None:
    mirror_all(client, root)
    experiment = client.get_experiment_by_name("headrace")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(mirror.mlflow_run.UserError, match="experiment headrace is deleted"):
        mirror_all(client, root)
