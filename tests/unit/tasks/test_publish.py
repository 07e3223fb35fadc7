import os
from pathlib import Path

from tasks.publish import NUM_CACHED, prune, prune_cache, publish_tree


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


def test_pruning_keeps_every_attempts_story_and_the_newest_output(tmp_path: Path) -> None:
    for key in ("old", "new"):
        for name in ("out", "work"):
            (tmp_path / key / name).mkdir(parents=True)
        (tmp_path / key / "log.txt").write_text("log")
    prune(tmp_path, "new")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/*")) == [
        "new/log.txt", "new/out", "new/work", "old/log.txt",
    ]  # fmt: skip


def test_a_cache_keeps_what_was_used_last_and_outlives_every_attempt(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prune_cache(cache)  # a stage that has none
    cache.mkdir()
    for age_s in range(NUM_CACHED + 3):
        (cache / str(age_s)).touch()
        os.utime(cache / str(age_s), (1e9 - age_s, 1e9 - age_s))
    os.utime(cache / str(NUM_CACHED + 2), (1e9, 1e9))
    prune_cache(cache)
    prune(tmp_path, "new")
    kept = {int(path.name) for path in cache.iterdir()}
    assert kept == {*range(NUM_CACHED - 1), NUM_CACHED + 2}
