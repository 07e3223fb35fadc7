"""Promotion where MLflow, its files, its record or a version fails."""

import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.pyfunc.model import PythonModel

from components.errors import InfraError, UserError
from tasks import config, journal
from tasks.champion import settle
from tasks.promotion import Promotion, models, promote, rollback, version_of
from tasks.registry import MODEL_NAME
from tests.integration.tasks import toy
from tests.integration.tasks.registered import SIGNATURE, champion, register, registry_in


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with registry_in(tmp_path, monkeypatch) as folder:
        yield folder


@pytest.mark.parametrize(
    "verb",
    [("models",), ("promote",), ("rollback", "why"), ("reproduce", "models:/headrace@champion")],
)
def test_an_mlflow_that_is_away_is_named_in_one_line_without_its_password(
    project: Path, verb: tuple[str, ...]
) -> None:
    done = toy.run(
        project, sys.executable, "-m", "tasks.cli", *verb, check=False,
        PYTHONPATH=str(toy.ROOT), MLFLOW_TRACKING_URI="http://jane:planted-pw@127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )  # fmt: skip
    said, hint = done.stdout.splitlines()
    assert done.returncode == InfraError.exit_code
    assert said.startswith("infra error: MLflow at http://127.0.0.1:9 does not answer: ")
    assert "mend MLFLOW_TRACKING_URI" in hint
    assert "planted" not in done.stdout


def test_an_alias_that_is_none_is_told_from_a_registry_that_is_away(project: Path) -> None:
    with pytest.raises(UserError, match="no such alias"):
        version_of(MlflowClient(), "models:/headrace@champion")


def test_a_registry_without_the_model_says_how_to_get_one(project: Path) -> None:
    MlflowClient().delete_registered_model(MODEL_NAME)
    with pytest.raises(UserError, match="no model 'headrace' is registered"):
        models(project)


def journal_run() -> tuple[str, str]:
    """The ids of the journal's experiment and of its run."""
    experiment = MlflowClient().get_experiment_by_name(journal.EXPERIMENT)
    assert experiment is not None
    (run,) = MlflowClient().search_runs([experiment.experiment_id])
    return experiment.experiment_id, run.info.run_id


def test_a_deleted_record_is_restored_not_begun_anew(project: Path) -> None:
    register(project, 1.5)
    promote(project)
    client, (experiment_id, run_id) = MlflowClient(), journal_run()
    before = client.get_registered_model(MODEL_NAME).tags
    client.delete_run(run_id)
    with pytest.raises(UserError, match="is deleted") as caught:
        promote(project)
    assert f"`mlflow runs restore --run-id {run_id}`" in caught.value.hint
    client.restore_run(run_id)
    client.delete_experiment(experiment_id)
    with pytest.raises(UserError, match="is deleted") as caught:
        rollback("why")
    assert f"`mlflow experiments restore --experiment-id {experiment_id}`" in caught.value.hint
    client.restore_experiment(experiment_id)
    assert [entry.after for entry in settle(client)] == ["1"]
    assert client.get_registered_model(MODEL_NAME).tags == before


def test_the_tag_of_an_earlier_record_does_not_pass_for_a_move_that_was_made(project: Path) -> None:
    register(project, 1.5)
    client = MlflowClient()
    client.set_registered_model_tag(MODEL_NAME, "promotion.000001", "then promote none -> 7 by bob")
    entry = journal.Entry("promote", "", "1", "ada", "all gates passed", "now", "token")
    assert journal.append(client, entry, 1)
    assert [entry.after for entry in settle(client)] == ["1"]
    assert champion() == "1"


def verdict(version: str) -> dict[str, str]:
    tags = MlflowClient().get_model_version(MODEL_NAME, version).tags
    return {name: value for name, value in tags.items() if name.startswith("gates.")}


def test_a_store_of_files_that_is_away_gives_no_verdict(project: Path) -> None:
    register(project, 1.5)
    (project / "mlruns").rename(project / "away")
    with pytest.raises(InfraError, match=r"models:/headrace/1 in sqlite.* cannot be loaded"):
        promote(project)
    assert verdict("1") == {}
    (project / "away").rename(project / "mlruns")
    assert promote(project).moved


def failed(promotion: Promotion) -> dict[str, str]:
    return {row.gate: row.candidate for row in promotion.rows if not row.passed}


def test_a_version_whose_own_code_fails_does_not_pass(project: Path) -> None:
    text = (project / "answers.py").read_text()
    (project / "answers.py").write_text(text.replace("return [", "1 / 0; return ["))
    register(project, 1.5)
    said = failed(promote(project))["answers from the registry"]
    assert said.endswith("does not answer: division by zero")
    assert verdict("1")["gates.passed"] == "false"


class Pickled(PythonModel):  # type: ignore[misc]
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return ["Hello." for _ in model_input]


def test_a_version_that_would_be_unpickled_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
    monkeypatch.setenv(name, config.with_defaults({}, project)[name])
    mlflow.set_experiment("models")
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name="model", python_model=Pickled(), signature=SIGNATURE, pip_requirements=[]
        )
    MlflowClient().create_model_version(MODEL_NAME, info.model_uri, run_id=info.run_id)
    said = failed(promote(project))["answers from the registry"]
    assert "pickle is disallowed" in said
