"""One pod at a time works on a run, and a kill at any point of a change of hands loses nothing."""

import json
from pathlib import Path

import pytest

from tasks import claim as module
from tasks.claim import PLACES, claim, holder, place_of, settle
from tests.dying import Killed, die_after

NUM_POINTS = 40
"""More than there are changes to the disk in a claim."""


CHANGES = (
    (module.outcome, "write_json"), (Path, "rename"), (Path, "mkdir"), (Path, "unlink"),
    (Path, "touch"), (Path, "symlink_to"), (module.os, "replace"), (module.shutil, "copyfile"),
    (module.shutil, "rmtree"),
)  # fmt: skip


def run_folder(root: Path) -> Path:
    run = root / "run"
    (run / "work" / "step-1").mkdir(parents=True)
    (run / "out").mkdir()
    (run / "reports").mkdir()
    (run / "request.json").write_text(json.dumps({"attempt": 1}))
    (run / "metrics.jsonl").write_text("one\n")
    return run


def test_a_pod_gets_the_work_of_the_one_before_and_readers_find_it_under_the_runs_own_names(
    tmp_path: Path,
) -> None:
    run = run_folder(tmp_path)
    first = claim(run, "a")
    (first / "work" / "step-2").mkdir()
    (first / "metrics.jsonl").write_text("one\ntwo\n")
    second = claim(run, "b")
    assert sorted(path.name for path in (second / "work").iterdir()) == ["step-1", "step-2"]
    assert (run / "metrics.jsonl").read_text() == "one\ntwo\n"
    assert (run / "work").resolve() == second / "work"
    assert holder(run) == "b"


def test_a_pod_that_was_superseded_can_reach_nothing_of_its_successors(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    first = claim(run, "a")
    open_log = (first / "log.txt").open("a")
    second = claim(run, "b")
    with pytest.raises(FileNotFoundError):
        (first / "work" / "step-2").mkdir()
    with pytest.raises(FileNotFoundError):
        (first / "out" / "text").write_text("late")
    open_log.write("late\n")
    open_log.close()
    # Even one that makes its folders anew makes them where nobody looks.
    (first / "work" / "step-9").mkdir(parents=True)
    third = claim(run, "c")
    assert [path.name for path in (third / "work").iterdir()] == ["step-1"]
    assert not (third / "log.txt").exists() or "late" not in (third / "log.txt").read_text()
    assert second != third


def test_a_claim_that_is_made_again_changes_nothing(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    place = claim(run, "a")
    (place / "out" / "text").write_text("whole")
    assert claim(run, "a") == place
    assert (run / "out" / "text").read_text() == "whole"


@pytest.mark.parametrize("num_calls", range(NUM_POINTS))
def test_a_kill_at_any_point_of_a_claim_leaves_the_work_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
) -> None:
    run = run_folder(tmp_path)
    claim(run, "a")
    with monkeypatch.context() as patch:
        die_after(patch, num_calls, CHANGES)
        try:
            claim(run, "b")
        except Killed:
            assert num_calls < NUM_POINTS - 1, "raise NUM_POINTS"
    place = claim(run, "c")
    assert [path.name for path in (place / "work").iterdir()] == ["step-1"]
    assert (run / "metrics.jsonl").read_text() == "one\n"


@pytest.mark.parametrize("num_calls", range(NUM_POINTS))
def test_a_kill_at_any_point_of_settling_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
) -> None:
    run = run_folder(tmp_path)
    place = claim(run, "a")
    (place / "out" / "text").write_text("whole")
    (place / "report.json").write_text("{}")
    with monkeypatch.context() as patch:
        die_after(patch, num_calls, CHANGES)
        try:
            settle(run)
        except Killed:
            assert num_calls < NUM_POINTS - 1, "raise NUM_POINTS"
    settle(run)
    assert not any((run / name).is_symlink() for name in module.LINKED)
    assert (run / "out" / "text").read_text() == "whole"
    assert (run / "report.json").read_text() == "{}"
    assert [path.name for path in (run / "work").iterdir()] == ["step-1"]
    assert (holder(run), place_of(run)) == ("", place)


def test_a_settled_runs_last_pod_can_write_nothing_of_it_and_the_next_takes_the_work(
    tmp_path: Path,
) -> None:
    run = run_folder(tmp_path)
    first = claim(run, "a")
    settle(run)
    with pytest.raises(FileNotFoundError):
        (first / "work" / "step-2").mkdir()
    (first / "work" / "step-9").mkdir(parents=True)
    second = claim(run, "b")
    assert [path.name for path in (second / "work").iterdir()] == ["step-1"]
    settle(run)
    assert [path.name for path in (run / "work").iterdir()] == ["step-1"]


def test_a_run_that_no_pod_worked_on_is_left_as_it_is(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    settle(run)
    assert (run / "work" / "step-1").is_dir()
    assert not (run / PLACES).exists()
    assert place_of(run) is None
