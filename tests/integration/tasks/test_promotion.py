"""Promotion on a real MLflow registry, with versions that answer."""

import multiprocessing
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from components.contract import STAGES
from components.errors import UserError
from tasks import journal
from tasks.promotion import ALIAS, models, promote, rollback, settle
from tasks.registry import MODEL_NAME

GATES = """
against_champion: {loss.dpo: {better: lower, min_gain_se: -1}}
bounds: {loss.dpo: {min: null, max: 2.0}}
max_failed_expectations: 0
prompts: [Hello?]
"""
ANSWERS = """
import mlflow
from mlflow.pyfunc.model import PythonModel

class Answers(PythonModel):
    def predict(self, context, model_input, params=None):
        return ["Hello." for _ in model_input]

mlflow.models.set_model(Answers())
"""
SIGNATURE = ModelSignature(
    Schema([ColSpec("string")]),
    Schema([ColSpec("string")]),
    ParamSchema([ParamSpec("max_new_tokens", "long", 1)]),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "gates.yaml").write_text(GATES)
    (tmp_path / "answers.py").write_text(ANSWERS)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("models", (tmp_path / "mlruns").as_uri())
    MlflowClient().create_registered_model(MODEL_NAME)
    yield tmp_path
    mlflow.set_tracking_uri(None)  # else it outweighs what later tests' environment says


def register(project: Path, loss: float, num_failed: int = 0, se: float = 0.1) -> str:
    mlflow.set_experiment("models")
    with mlflow.start_run():
        for stage in STAGES:
            mlflow.log_dict(
                {"contract": {"num_failed": num_failed if stage == "dedup" else 0}},
                f"reports/{stage}.json",
            )
        info = mlflow.pyfunc.log_model(
            name="model", python_model=str(project / "answers.py"), signature=SIGNATURE,
            pip_requirements=[],
        )  # fmt: skip
    tags = {"metric.loss.dpo": str(loss), "metric.loss_se.dpo": str(se)}
    version = MlflowClient().create_model_version(
        MODEL_NAME, info.model_uri, run_id=info.run_id, tags=tags, model_id=info.model_id
    )
    return str(version.version)


def champion() -> str:
    return str(MlflowClient().get_registered_model(MODEL_NAME).aliases.get(ALIAS, ""))


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


def _promote(project: Path, version: str, answers: "multiprocessing.Queue[str]") -> None:
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
    answers: multiprocessing.Queue[str] = context.Queue()
    movers = [
        context.Process(target=_promote, args=(project, version, answers)) for version in "12"
    ]
    for mover in movers:
        mover.start()
    said = sorted(answers.get(timeout=120) for _ in movers)
    for mover in movers:
        mover.join()
    entries = journal.read(MlflowClient())
    assert champion() == entries[-1].after
    assert len({entry.token for entry in entries}) == len(entries)
    if len(entries) == 1:  # they met
        assert said[1] == "won"
        assert "was first: promote none" in said[0]
    else:  # one was done before the other looked
        assert said == ["won", "won"]


def test_an_entry_can_be_written_by_one_alone(project: Path) -> None:
    client = MlflowClient()
    first = journal.Entry("promote", "", "1", "ada", "", "now", "a")
    second = journal.Entry("promote", "", "2", "bob", "", "now", "b")
    assert journal.append(client, first, 1)
    assert not journal.append(client, second, 1)
    assert journal.read(client) == [first]


def test_the_files_that_are_reviewed_are_whole() -> None:
    root = Path(__file__).resolve().parents[3]
    from components.gates.promotion import load_gates

    gates = load_gates(root / "gates.yaml")
    assert gates.prompts
    tracked = subprocess.run(
        ["git", "ls-files", "gates.yaml"], cwd=root, capture_output=True, text=True, check=True
    )
    assert tracked.stdout.strip() == "gates.yaml"
