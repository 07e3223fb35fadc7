"""Promotion on a real MLflow registry, with versions that answer."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.errors import UserError
from tasks import journal
from tasks.promotion import promote, rollback
from tasks.registry import MODEL_NAME
from tests.integration.tasks.registered import (
    GATES,
    champion,
    register,
    registry_in,
    write_gates,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with registry_in(tmp_path, monkeypatch) as folder:
        yield folder


def test_a_version_that_passes_every_gate_becomes_champion_and_is_on_the_record(
    project: Path,
) -> None:
    register(project, 1.5)
    promotion = promote(project, who="ada")
    assert promotion.moved
    assert champion() == "1"
    (entry,) = journal.read(MlflowClient())
    assert (entry.action, entry.before, entry.after, entry.who, entry.why) == (
        "promote", "", "1", "ada", "all gates passed",
    )  # fmt: skip
    model = MlflowClient().get_registered_model(MODEL_NAME)
    assert "promote none -> 1 by ada: all gates passed" in model.tags["promotion.000001"]
    version = MlflowClient().get_model_version(MODEL_NAME, "1")
    assert version.tags["gates.passed"] == "true"
    assert "| loss.dpo | 1.5000 ± 0.1000 |  | <= 2 | passed |" in version.tags["gates.verdict"]


@pytest.mark.parametrize(
    ("loss", "num_failed", "gate"),
    [(2.5, 0, "loss.dpo"), (1.7, 0, "loss.dpo"), (1.5, 1, "data contracts")],
    ids=["above the bound", "worse than the champion", "a contract failed"],
)
def test_a_version_that_fails_a_gate_leaves_the_champion_where_it_is(
    project: Path, loss: float, num_failed: int, gate: str
) -> None:
    register(project, 1.5)
    promote(project)
    register(project, loss, num_failed)
    promotion = promote(project)
    assert not promotion.moved
    assert gate in {row.gate for row in promotion.rows if not row.passed}
    assert champion() == "1"
    assert MlflowClient().get_model_version(MODEL_NAME, "2").tags["gates.passed"] == "false"
    assert len(journal.read(MlflowClient())) == 1


def test_gates_that_were_changed_and_not_committed_let_nothing_through_without_a_reason(
    project: Path,
) -> None:
    register(project, 2.5)
    (project / "gates.yaml").write_text(GATES.replace("max: 2.0", "max: 3.0"))
    promotion = promote(project)
    (failed,) = (row for row in promotion.rows if not row.passed)
    assert (failed.gate, failed.asked) == ("gates.yaml", "as committed")
    assert failed.candidate.startswith("changed since commit ")
    assert champion() == ""
    write_gates(project, (project / "gates.yaml").read_text())
    assert promote(project).moved


def test_gates_that_are_not_in_git_let_nothing_through(project: Path) -> None:
    register(project, 1.5)
    shutil.rmtree(project / ".git")
    promotion = promote(project)
    assert [row.candidate for row in promotion.rows if not row.passed] == ["not in git"]
    assert promote(project, override="a trial").moved


def test_a_version_that_was_measured_on_other_items_than_the_champion_does_not_beat_it(
    project: Path,
) -> None:
    for ids in ("abcd", "abcd", "abce"):
        register(project, 1.5, ids=ids)
        promotion = promote(project)
    assert champion() == "2"
    (row,) = (row for row in promotion.rows if not row.passed)
    assert (row.gate, row.asked) == ("loss.dpo", "gain >= -1 se; other test items")


def test_a_version_without_its_items_does_not_beat_the_champion(project: Path) -> None:
    for _ in range(2):
        register(project, 1.5)
        promote(project)
    (reports,) = project.glob(
        f"mlruns/{MlflowClient().get_model_version(MODEL_NAME, '2').run_id}/artifacts/reports"
    )
    shutil.rmtree(reports / "evaluate")
    register(project, 1.4)
    (row,) = (row for row in promote(project).rows if not row.passed)
    assert (row.gate, row.asked) == ("loss.dpo", "gain >= -1 se; unknown, item by item")


def test_a_figure_that_somebody_made_a_text_was_not_measured(project: Path) -> None:
    register(project, 1.5)
    MlflowClient().set_model_version_tag(MODEL_NAME, "1", "metric.loss.dpo", "good")
    promotion = promote(project)
    assert "| loss.dpo | not measured |  | <= 2 | **failed** |" in promotion.text


def test_a_reason_is_needed_and_holds_no_password(project: Path) -> None:
    register(project, 9.0)
    assert not promote(project, override="  ").moved
    for move in (lambda why: promote(project, override=why), rollback):
        with pytest.raises(UserError, match="a reason with a password"):
            move("see https://jane:planted@wiki.example/leak")
    with pytest.raises(UserError, match="a rollback without a reason"):
        rollback(" ")
    assert journal.read(MlflowClient()) == []


def test_a_reason_overrides_the_gates_and_is_kept(project: Path) -> None:
    register(project, 9.0)
    assert promote(project, override="the old one leaks").moved
    assert journal.read(MlflowClient())[0].why == "override: the old one leaks"


def test_a_rollback_goes_back_one_champion_at_a_time(project: Path) -> None:
    for loss in (1.5, 1.4, 1.3):
        register(project, loss)
        promote(project)
    assert rollback("slow").after == "2"
    assert rollback("slow too").after == "1"
    assert champion() == "1"
    with pytest.raises(UserError, match="no champion to go back to"):
        rollback("again")
    assert [entry.action for entry in journal.read(MlflowClient())] == [
        "promote", "promote", "promote", "rollback", "rollback",
    ]  # fmt: skip


def test_a_rollback_goes_past_champions_that_were_deleted_and_names_them(project: Path) -> None:
    for loss in (1.5, 1.4, 1.3, 1.2):
        register(project, loss)
        promote(project)
    for version in ("2", "3"):
        MlflowClient().delete_model_version(MODEL_NAME, version)
    entry = rollback("it leaks")
    assert (entry.before, entry.after, champion()) == ("4", "1", "1")
    assert journal.read(MlflowClient())[-1].why == "it leaks (deleted meanwhile: version 3, 2)"


def test_a_rollback_to_nothing_but_deleted_champions_names_them(project: Path) -> None:
    for loss in (1.5, 1.4):
        register(project, loss)
        promote(project)
    MlflowClient().delete_model_version(MODEL_NAME, "1")
    with pytest.raises(UserError, match=r"no champion to go back to \(.*: version 1\)"):
        rollback("it leaks")
    assert champion() == "2"


def test_a_mover_without_a_name_is_on_the_record_by_number(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    register(project, 1.5)
    assert promote(project).moved
    assert journal.read(MlflowClient())[0].who.startswith("uid 987654@")


def test_a_champion_with_a_thousand_versions_after_it_is_still_found(project: Path) -> None:
    register(project, 1.5)
    promote(project)
    copy_newest_version(project / "mlflow.db", 1001)
    register(project, 1.4)
    promotion = promote(project)
    assert (promotion.champion, promotion.version) == ("1", "1003")


def copy_newest_version(database: Path, num_copies: int) -> None:
    with sqlite3.connect(database) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(model_versions)")]
        taken = ", ".join("n" if name == "version" else f"m.{name}" for name in names)
        connection.execute(
            "WITH RECURSIVE counted(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM counted WHERE n <= ?)"
            f" INSERT INTO model_versions ({', '.join(names)})"
            f" SELECT {taken} FROM model_versions AS m, counted WHERE m.version = 1",
            (num_copies,),
        )


def test_the_files_that_are_reviewed_are_whole() -> None:
    root = Path(__file__).resolve().parents[3]
    from components.gates.promotion import load_gates

    gates = load_gates(root / "gates.yaml")
    assert gates.prompts
    tracked = subprocess.run(
        ["git", "ls-files", "gates.yaml"], cwd=root, capture_output=True, text=True, check=True
    )
    assert tracked.stdout.strip() == "gates.yaml"
