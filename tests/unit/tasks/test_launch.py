import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from tasks import launch, outcome, run_dir
from tasks.config import Settings, StageResources
from tasks.dag import StageSpec
from tasks.launch import FLOW_RUN, Prepared, next_request
from tasks.outcome import Outcome
from tasks.run_dir import RunDir
from tests.dying import Killed, die_after
from tests.resources import resources

ROOT = Path(__file__).resolve().parents[3]
NUM_POINTS = 16
"""More than there are writes and removals in an attempt."""


CHANGES = (
    (launch, "remove"), (launch.outcome, "write_json"), (launch, "write_latest"), (Path, "mkdir"),
)  # fmt: skip
"""The writes and removals of an attempt."""


def ended(kind: str, attempt: int) -> Outcome:
    return Outcome("left", "k", kind, 0, "", "", "here", attempt, 0.0, 0.0, 0.0)


def prepared(root: Path) -> Prepared:
    spec = StageSpec("left", ("components/left",), ("left",), ())
    return Prepared(RunDir(root, "left", "k"), spec, {"seed": 1}, {})


class Launcher:
    """Leaves what a stage leaves, and remembers what it found."""

    found: tuple[list[str], str]

    def goes_on(self, run: RunDir, before: Mapping[str, Any]) -> bool:
        return False

    def run(self, run: RunDir, resources: StageResources) -> Outcome:
        metrics = run.metrics.read_text() if run.metrics.exists() else ""
        Launcher.found = (sorted(path.name for path in run.work.iterdir()), metrics)
        assert not (run.path / outcome.NAME).exists()
        (run.out / "text").write_text("new")
        run.metrics.write_text("new")
        return ended("ok", 1)


def attempt(root: Path) -> Outcome:
    work = prepared(root)
    last = outcome.read(work.run.path)
    return launch._attempt(work, Settings(), resources(), last, Launcher())


@pytest.mark.parametrize("num_calls", range(NUM_POINTS))
def test_a_kill_at_any_point_of_computing_again_leaves_the_whole_old_output_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
) -> None:
    run = RunDir(tmp_path, "left", "k")
    for path in (run.out, run.work, run.reports):
        path.mkdir(parents=True)
    (run.out / "text").write_text("old")
    (run.work / "checkpoint").write_text("old")
    run.metrics.write_text("old")
    outcome.write_json(run.request, {"attempt": 3, "begun_at": 5.0, "flow_runs": ["a"]})
    outcome.write(run.path, ended("ok", 3))
    with monkeypatch.context() as patch:
        die_after(patch, num_calls, CHANGES)
        try:
            attempt(tmp_path)
        except Killed:
            pass
        else:
            assert num_calls > 9
            return
    last = outcome.read(run.path)
    at_hand = last is not None and last.ok and run.out.is_dir()
    assert not at_hand or (run.out / "text").read_text() == "old"
    request = run_dir.read_request(run.path)
    assert last is not None or request["begun_at"] > 5.0
    attempt(tmp_path)
    assert Launcher.found in (([], ""), ([], "new"))
    after = json.loads(run.request.read_text())
    assert after["begun_at"] == (
        request["begun_at"] if request["attempt"] > 3 else after["requested_at"]
    )
    assert outcome.read(run.path) == replace(ended("ok", 3), attempt=after["attempt"])


def test_an_attempt_that_goes_on_keeps_its_begin_and_names_every_flow_run_that_worked_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, request = prepared(tmp_path), {}
    for flow_run, last in (("a", None), ("b", ended("infra", 1)), ("", None), ("b", None)):
        monkeypatch.setenv(FLOW_RUN, flow_run)
        request = next_request(work, Settings(), request, last)
    assert request["flow_runs"] == ["a", "b"]
    assert (request["flow_run"], request["attempt"]) == ("b", 4)
    assert request["begun_at"] < request["requested_at"] <= time.time()
    again = next_request(work, Settings(), request, ended("ok", 4))
    assert (again["flow_runs"], again["attempt"]) == (["b"], 5)
    assert again["begun_at"] == again["requested_at"] > request["requested_at"]


def test_code_that_is_taken_from_elsewhere_and_is_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").write_text(
        "stages: {clean: {cmd: '', deps: [components/clean, data/own], params: []}}\n"
    )
    shutil.copytree(ROOT / "components" / "clean", tmp_path / "components" / "clean")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own").write_text("text")
    launch._require_own_code(tmp_path, "clean")
    with (tmp_path / "components" / "clean" / "stage.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(UserError, match=rf"clean: Python takes its code from {ROOT}"):
        launch._require_own_code(tmp_path, "clean")
    monkeypatch.setenv("HEADRACE_LAUNCHER", "kubernetes")  # its own launcher compares commits
    launch._require_own_code(tmp_path, "clean")
