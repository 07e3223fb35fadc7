"""Promotions at the same time, killed halfway, or beside somebody who moves the alias by hand."""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from components.errors import UserError
from tasks import journal, promotion
from tasks.champion import ALIAS, settle
from tasks.promotion import models, promote, rollback
from tasks.registry import MODEL_NAME
from tests.integration.tasks.registered import champion, register, registry_in


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with registry_in(tmp_path, monkeypatch) as folder:
        yield folder


def test_an_alias_moved_by_hand_is_seen_and_recorded(project: Path) -> None:
    for loss in (1.5, 1.4):
        register(project, loss)
    promote(project, "1")
    MlflowClient().set_registered_model_alias(MODEL_NAME, ALIAS, "2")
    last = settle(MlflowClient())[-1]
    assert (last.action, last.before, last.after) == ("by hand", "1", "2")
    assert rollback("it was a mistake").after == "1"
    MlflowClient().delete_registered_model_alias(MODEL_NAME, ALIAS)
    assert settle(MlflowClient())[-1].after == ""
    assert len(settle(MlflowClient())) == 4
    assert "by hand   1 -> none" in models(project)


def test_a_mover_that_was_killed_before_the_alias_moved_is_finished_by_the_next(
    project: Path,
) -> None:
    register(project, 1.5)
    client = MlflowClient()
    entry = journal.Entry("promote", "", "1", "ada", "all gates passed", "then", "token")
    assert journal.append(client, entry, 1)
    assert champion() == ""
    assert [e.after for e in settle(client)] == ["1"]
    assert champion() == "1"


def test_a_killed_move_to_a_version_that_was_deleted_since_leaves_no_champion(
    project: Path,
) -> None:
    register(project, 1.5)
    client = MlflowClient()
    entry = journal.Entry("promote", "", "2", "ada", "all gates passed", "then", "token")
    assert journal.append(client, entry, 1)
    assert [(e.action, e.after) for e in settle(client)] == [("promote", "2"), ("by hand", "")]
    assert promote(project).moved
    assert champion() == "1"


def stall_before_moving(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Have `meanwhile` happen before the next move of the alias, once."""
    waiting = [meanwhile]

    class Stalling(MlflowClient):  # type: ignore[misc]
        def set_registered_model_alias(self, *arguments: Any) -> None:
            if waiting:
                waiting.pop()()
            super().set_registered_model_alias(*arguments)

    monkeypatch.setattr(mlflow, "MlflowClient", Stalling)


def test_a_mover_that_stalls_does_not_undo_a_rollback_of_its_move(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loss in (1.5, 1.4):
        register(project, loss)
    promote(project, "1")
    stall_before_moving(monkeypatch, lambda: rollback("it leaks"))
    promote(project, "2")
    assert champion() == "1"
    moves = [(entry.action, entry.after) for entry in settle(MlflowClient())]
    assert moves == [("promote", "1"), ("promote", "2"), ("rollback", "1")]


def test_whoever_finishes_a_killed_move_and_stalls_does_not_undo_what_came_after(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loss in (1.5, 1.4):
        register(project, loss)
    promote(project, "1")
    entry = journal.Entry("promote", "1", "2", "ada", "all gates passed", "then", "token")
    assert journal.append(MlflowClient(), entry, 2)
    stall_before_moving(monkeypatch, lambda: rollback("it leaks"))
    assert [entry.after for entry in settle(mlflow.MlflowClient())] == ["1", "2", "1"]
    assert champion() == "1"


def test_an_alias_moved_by_hand_while_the_gates_run_stays_and_is_entered(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loss in (1.5, 1.4, 1.3):
        register(project, loss)
    promote(project, "1")

    def moved_by_hand(*arguments: Any, **params: Any) -> list[str]:
        MlflowClient().set_registered_model_alias(MODEL_NAME, ALIAS, "3")
        return ["Hello."]

    monkeypatch.setattr(promotion, "generate", moved_by_hand)
    with pytest.raises(UserError, match="was first: by hand 1 -> 3"):
        promote(project, "2")
    assert champion() == "3"
    assert [entry.after for entry in journal.read(MlflowClient())] == ["1", "3"]


def _promote(project: Path, version: str, both: Any, answers: Any) -> None:
    append = journal.append

    def append_with_the_other(*arguments: Any) -> bool:
        both.wait(120)
        return append(*arguments)

    journal.append = append_with_the_other
    try:
        promote(project, version, who=f"mover {version}")
        answers.put("won")
    except UserError as error:
        answers.put(error.message)


def test_of_two_promotions_at_once_one_wins_and_the_other_says_why(project: Path) -> None:
    for loss in (1.5, 1.4):
        register(project, loss)
    settle(MlflowClient())
    context = multiprocessing.get_context("spawn")
    answers, both = context.Queue(), context.Barrier(2)
    movers = [
        context.Process(target=_promote, args=(project, version, both, answers)) for version in "12"
    ]
    for mover in movers:
        mover.start()
    said = sorted(answers.get(timeout=120) for _ in movers)
    for mover in movers:
        mover.join()
    (entry,) = journal.read(MlflowClient())
    assert champion() == entry.after
    assert said[0].startswith(f"mover {entry.after} was first: promote none -> {entry.after} at ")
    assert said[1] == "won"


def test_an_entry_can_be_written_by_one_alone(project: Path) -> None:
    client = MlflowClient()
    first = journal.Entry("promote", "", "1", "ada", "", "now", "a")
    second = journal.Entry("promote", "", "2", "bob", "", "now", "b")
    assert journal.append(client, first, 1)
    assert not journal.append(client, second, 1)
    assert journal.read(client) == [first]
