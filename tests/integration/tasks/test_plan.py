"""`headrace plan`: which stages would run, and why."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.tasks import toy


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project that has run once, with a param and a file of code changed since."""
    folder = toy.copy(template, tmp_path_factory.mktemp("plan") / "project")
    toy.set_param(folder, "left", text="L")
    toy.add_code(folder, "right", "# a comment\n")
    return folder


def plan(folder: Path, *arguments: str) -> str:
    return toy.run(folder, sys.executable, "-m", "tasks.cli", "plan", *arguments).stdout


def test_the_plan_names_the_param_and_the_file_that_changed_and_what_follows(project: Path) -> None:
    planned = {item["stage"]: item for item in json.loads(plan(project, "--json"))}
    assert {stage: item["verdict"] for stage, item in planned.items()} == {
        "source": "cached", "left": "run", "right": "run", "join": "follow",
    }  # fmt: skip
    assert planned["left"]["reasons"] == ['param left.text: "l" -> "L"']
    assert planned["right"]["reasons"] == ["code components/right/stage.py: changed"]
    assert planned["join"]["reasons"] == ["after left, right"]
    assert all(item["last_s"] > 0 for item in planned.values())


def test_the_table_says_how_many_would_run(project: Path) -> None:
    lines = plan(project).splitlines()
    assert lines[0].split() == ["source", "cached", lines[0].split()[2], "s"]
    assert lines[-1].startswith("3 of 4 stages to run")


def test_a_plan_changes_nothing(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    plan(project)
    assert (project / "dvc.lock").read_bytes() == before
    assert toy.text_of(project, "left") == "sl"


def test_the_plan_compares_with_what_dvc_has_recorded_not_with_an_attempt_that_failed(
    template: Path, tmp_path: Path
) -> None:
    folder = toy.copy(template, tmp_path / "project")
    toy.set_param(folder, "left", text="L", fate="user")
    toy.dvc(folder, "repro", "-s", "left", check=False)
    assert plan_of(folder, "left")["last_s"] > 0
    toy.set_param(folder, "left", text="l", fate="ok")
    toy.add_code(folder, "left", "# a comment\n")
    assert plan_of(folder, "left")["reasons"] == ["code components/left/stage.py: changed"]
    toy.set_param(folder, "left", text="M")
    (folder / "artifacts" / "source" / "text").unlink()
    assert plan_of(folder, "left")["reasons"] == [
        'param left.text: "l" -> "M"', "code components/left/stage.py: changed",
        "artifacts/source modified",
    ]  # fmt: skip


def test_what_dvc_takes_from_its_cache_is_not_called_a_run(template: Path, tmp_path: Path) -> None:
    folder = toy.copy(template, tmp_path / "project")
    toy.set_param(folder, "left", text="L")
    toy.dvc(folder, "repro", "-s", "left")
    assert plan_of(folder, "left")["verdict"] == "cached"
    toy.set_param(folder, "left", text="l")
    shutil.rmtree(folder / "artifacts" / "right")
    planned = {stage: plan_of(folder, stage) for stage in ("left", "right")}
    assert {stage: item["verdict"] for stage, item in planned.items()} == {
        "left": "restore", "right": "restore",
    }  # fmt: skip
    assert planned["left"]["reasons"] == ['param left.text: "L" -> "l"']
    assert planned["right"]["reasons"] == ["outs: artifacts/right deleted"]
    assert plan(folder).splitlines()[-1].startswith("1 of 4 stages to run")
    said = toy.dvc(folder, "repro").stdout
    assert "Stage 'left' is cached - skipping run" in said
    assert "Stage 'right' is cached - skipping run" in said


def plan_of(folder: Path, stage: str) -> dict[str, Any]:
    (planned,) = (item for item in json.loads(plan(folder, "--json")) if item["stage"] == stage)
    return dict(planned)
