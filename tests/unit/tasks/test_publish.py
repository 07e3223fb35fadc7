import fcntl
import os
from pathlib import Path

from tasks import outcome
from tasks.outcome import Outcome
from tasks.publish import LOCK, NUM_CACHED, prune, prune_cache, publish_tree


def test_publishing_replaces_the_whole_tree(tmp_path: Path) -> None:
    (tmp_path / "out" / "inner").mkdir(parents=True)
    (tmp_path / "out" / "inner" / "new").write_text("new")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "old").write_text("old")
    publish_tree(tmp_path / "out", tmp_path / "target")
    assert [
        str(p.relative_to(tmp_path / "target")) for p in sorted((tmp_path / "target").rglob("*"))
    ] == [
        "inner",
        "inner/new",
    ]
    assert (tmp_path / "out" / "inner" / "new").read_text() == "new"


def test_publishing_takes_no_second_copy_on_disk(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("text")
    publish_tree(tmp_path / "out", tmp_path / "target")
    assert (tmp_path / "out" / "file").stat().st_ino == (tmp_path / "target" / "file").stat().st_ino


def test_a_leftover_of_a_killed_publish_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("text")
    for _ in range(2):
        publish_tree(tmp_path / "out", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "text"


def attempt(stage_runs: Path, key: str, kind: str) -> None:
    for name in ("out", "work"):
        (stage_runs / key / name).mkdir(parents=True)
    (stage_runs / key / "work" / "checkpoint").write_text("weights")
    (stage_runs / key / "log.txt").write_text("log")
    if kind:
        ended = Outcome("s", key, kind, 0, "", "", "here", 1, 0.0, 0.0, 0.0)
        outcome.write(stage_runs / key, ended)


def with_work(stage_runs: Path) -> set[str]:
    return {path.parent.name for path in stage_runs.glob("*/work")}


def test_pruning_drops_the_outputs_of_finished_attempts_and_keeps_their_story(
    tmp_path: Path,
) -> None:
    attempt(tmp_path, "old", "ok")
    attempt(tmp_path, "new", "ok")
    prune(tmp_path, "new", print)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/[a-z]*")) == [
        "new/log.txt", "new/out", "new/outcome.json", "new/work", "old/log.txt", "old/outcome.json",
    ]  # fmt: skip


def test_pruning_keeps_the_checkpoints_of_the_newest_unfinished_attempts_and_names_the_others(
    tmp_path: Path,
) -> None:
    keys = ["running", "empty", "a", "b", "c", "d", "e"]
    for age, key in enumerate(keys):
        attempt(tmp_path, key, "infra" if age % 2 else "")
        os.utime(tmp_path / key / "work", (1000 - age, 1000 - age))
    (tmp_path / "empty" / "work" / "checkpoint").unlink()
    attempt(tmp_path, "new", "ok")
    said: list[str] = []
    with (tmp_path / "running" / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prune(tmp_path, "new", said.append)
    assert with_work(tmp_path) == {"running", "a", "b", "c", "new"}
    assert said == [
        f"{tmp_path.name}: attempt {key} was not finished, and what it would go on from is dropped: "
        "only the 3 newest of such keep it"
        for key in "de"
    ]


def test_pruning_leaves_alone_what_runs_in_another_workspace(tmp_path: Path) -> None:
    attempt(tmp_path, "running", "ok")
    attempt(tmp_path, "new", "ok")
    with (tmp_path / "running" / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prune(tmp_path, "new", print)
    assert with_work(tmp_path) == {"running", "new"}


def test_a_cache_keeps_what_was_used_last_and_outlives_every_attempt(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prune_cache(cache)  # a stage that has none
    cache.mkdir()
    for age_s in range(NUM_CACHED + 3):
        (cache / str(age_s)).touch()
        os.utime(cache / str(age_s), (1e9 - age_s, 1e9 - age_s))
    os.utime(cache / str(NUM_CACHED + 2), (1e9, 1e9))
    prune_cache(cache)
    prune(tmp_path, "new", print)
    kept = {int(path.name) for path in cache.iterdir()}
    assert kept == {*range(NUM_CACHED - 1), NUM_CACHED + 2}
