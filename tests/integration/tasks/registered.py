"""A real MLflow registry in a folder, with versions that answer; and what a version is made of."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from components.contract import STAGES
from tasks.champion import ALIAS
from tasks.registry import ITEMS, MODEL_NAME, REPRODUCE

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


def evaluated(folder: Path) -> Path:
    """`folder` as a project whose models, small real ones, are evaluated: all that is registered."""
    from tests.small_models import write_model

    for name in ("dpo", "quantize"):
        write_model(folder / "artifacts" / name)
    (folder / "artifacts" / "evaluate").mkdir()
    (folder / "artifacts" / "evaluate" / "results.md").write_text("a table")
    (folder / "reports").mkdir()
    (folder / "reports" / "evaluate.json").write_text(json.dumps({"bits": {"dpo": 1.5}}))
    for name in REPRODUCE:
        (folder / name).write_text("{}\n")
    return folder


@contextmanager
def registry_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`folder` with gates.yaml and an empty registry that the environment names, while the body runs."""
    write_gates(folder, GATES)
    (folder / "answers.py").write_text(ANSWERS)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("models", (folder / "mlruns").as_uri())
    MlflowClient().create_registered_model(MODEL_NAME)
    try:
        yield folder
    finally:
        mlflow.set_tracking_uri(None)  # else it outweighs what later tests' environment says


def write_gates(folder: Path, text: str) -> None:
    """Write gates.yaml and commit it, in a git repository that is made if need be."""
    (folder / "gates.yaml").write_text(text)
    who = ("-c", "user.name=t", "-c", "user.email=t@t")
    for words in (["init"], ["add", "gates.yaml"], [*who, "commit", "-m", "Set the gates"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def register(project: Path, loss: float, num_failed: int = 0, ids: str = "abcd") -> str:
    """A version whose loss is the mean over the test items `ids`, a letter each."""
    mlflow.set_experiment("models")
    with mlflow.start_run():
        for stage in STAGES:
            mlflow.log_dict(
                {"contract": {"num_failed": num_failed if stage == "dedup" else 0}},
                f"reports/{stage}.json",
            )
        items = {"ids": [*ids], "sizes": [1.0] * len(ids), "dpo": [loss] * len(ids)}
        mlflow.log_dict({"loss": items}, ITEMS.as_posix())
        info = mlflow.pyfunc.log_model(
            name="model", python_model=str(project / "answers.py"), signature=SIGNATURE,
            pip_requirements=[],
        )  # fmt: skip
    tags = {"metric.loss.dpo": str(loss), "metric.loss_se.dpo": "0.1"}
    version = MlflowClient().create_model_version(
        MODEL_NAME, info.model_uri, run_id=info.run_id, tags=tags, model_id=info.model_id
    )
    return str(version.version)


def champion() -> str:
    return str(MlflowClient().get_registered_model(MODEL_NAME).aliases.get(ALIAS, ""))
