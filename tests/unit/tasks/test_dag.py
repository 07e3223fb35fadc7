from pathlib import Path

import pytest

from components.errors import UserError
from tasks.dag import read_dag, select

DIAMOND = """
stages:
  join: {cmd: j, deps: [components/join, artifacts/left, artifacts/right/part]}
  left: {cmd: l, deps: [artifacts/source], params: [seed, left]}
  right: {cmd: r, deps: [artifacts/source]}
  source: {cmd: s, deps: [components/source]}
"""


def dag(folder: Path, text: str) -> dict[str, object]:
    (folder / "dvc.yaml").write_text(text)
    return read_dag(folder)


def test_each_stage_follows_what_it_depends_on(tmp_path: Path) -> None:
    assert list(dag(tmp_path, DIAMOND)) == ["source", "left", "right", "join"]


def test_the_edges_are_the_artifacts_among_the_deps(tmp_path: Path) -> None:
    assert dag(tmp_path, DIAMOND)["join"].inputs == ("left", "right")


def test_a_cycle_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a cycle among a, b"):
        dag(tmp_path, "stages:\n  a: {deps: [artifacts/b]}\n  b: {deps: [artifacts/a]}\n")


def test_a_dependency_on_no_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a depends on x, which is no stage"):
        dag(tmp_path, "stages:\n  a: {deps: [artifacts/x]}\n")


def test_a_selection_keeps_the_dags_order(tmp_path: Path) -> None:
    assert select(dag(tmp_path, DIAMOND), ("join", "source")) == ["source", "join"]


def test_an_unknown_stage_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        select(dag(tmp_path, DIAMOND), ("jion",))
    assert caught.value.hint == "one of: source, left, right, join"
