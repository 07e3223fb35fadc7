"""`headrace plan`: which stages would run, and why."""

import json
import sys
from pathlib import Path

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
