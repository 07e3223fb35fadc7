"""The MLflow registry: a version of `headrace` for every evaluated model, and answers from it."""

import json
import re
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contract import Json
from components.errors import DataError, InfraError, StageError, UserError, disk_error
from tasks import config, outcome
from tasks.flow_record import git_commit
from tasks.key import digest_tree
from tasks.launch import prepare
from tasks.locks import locked
from tasks.mlflow_faults import (
    absence_typed,
    download_faults_typed,
    first_line,
    mlflow_faults_typed,
    registry_uri,
    upload_faults_typed,
)
from tasks.mlflow_run import open_store
from tasks.publish import publish_tree
from tasks.run_dir import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "headrace"
WEIGHTS = {"model": "artifacts/dpo/model", "quantized": "artifacts/quantize/model"}
TRIAL_PROMPT = "What does the operation CreateBucket do?"


ITEMS = Path("reports", "evaluate", "items.json")
"""What each test item gave; kept with a version under the same path."""
FOLDER = Path("runs", "registry")
"""In the project: a note of each registered version, and what one that is being made is made of."""
REPRODUCE = ("params.yaml", "dvc.yaml", "dvc.lock")
"""What it takes to compute a version again: `git checkout`, these three, and `dvc pull` or `dvc repro`."""


@dataclass(frozen=True)
class Registered:
    """A version in the registry, and the proof that it loads from there alone."""

    uri: str
    version: str
    key: str
    """The key of the evaluation: params, data and code of everything before it."""
    trial_prompt: str
    trial_answer: str
    registry: str
    """Where that is, without user and password: each registry counts its own versions."""


def register(root: Path) -> tuple[Registered, bool]:
    """Register the evaluated model unless its version exists; say which it is and whether it is new.

    The version is found again by the evaluation's key, so doing it twice, at once, or after a kill
    in between, gives one version in each registry. MLflow is asked each time: its database may have
    been wiped, or the version deleted. Raises InfraError if MLflow does not take it, DataError if what
    it has taken does not answer.
    """
    key = prepare(root, "evaluate").run.key
    place = registry_uri()
    folder = config.home_root(root) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):  # a second one waits, and then finds the first one's
        known = read_note(folder / f"{key}.json")
        try:
            with mlflow_faults_typed():
                version = find_version(key)
                if known is not None and (known.registry, known.version) == (place, version):
                    return known, False
                version = version or _create_version(root, key)
                uri = f"models:/{MODEL_NAME}/{version}"
                answer = generate(uri, [TRIAL_PROMPT])[0]
        except DataError:  # the model's own fault, which no waiting mends
            raise
        except (OSError, StageError) as error:
            raise InfraError(
                f"the registry did not take the model: {first_line(error)}",
                "the model is safe in artifacts/; `headrace run` registers it when MLflow answers",
            ) from error
        registered = Registered(uri, version, key, TRIAL_PROMPT, answer, place)
        outcome.write_json(folder / f"{key}.json", asdict(registered))
    return registered, True


def read_note(path: Path) -> Registered | None:
    """What was registered; None if nothing was, or by an older version that did not say where."""
    try:
        return Registered(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def find_version(key: str) -> str | None:
    """The oldest version of the evaluation `key`; None if there is none."""
    from mlflow import MlflowClient

    found = MlflowClient().search_model_versions(
        f"name = '{MODEL_NAME}' and tags.`headrace.stage_key` = '{key}'"
    )
    return str(min(int(version.version) for version in found)) if found else None


def _only_version(key: str, version: str, run_id: str) -> str:
    """The one version that stays for `key`, after `version` was made by the run `run_id`.

    Other machines know nothing of our lock. Whoever made a newer one removes it, and no one else's:
    versions are counted in the order in which they are made, so all agree which is the oldest.
    """
    from mlflow import MlflowClient

    oldest = find_version(key) or version
    if oldest != version:
        MlflowClient().delete_model_version(MODEL_NAME, version)
        MlflowClient().delete_run(run_id)
    return oldest


def _end_killed(client: "MlflowClient", experiment_id: str, origin: str) -> None:
    """End the runs of registrations that were killed: those from `origin` that still run."""
    text = "tags.`headrace.kind` = 'register' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], text):
        if run.data.tags.get("headrace.origin") == origin:
            client.set_terminated(run.info.run_id, "KILLED")


def _create_version(root: Path, key: str) -> str:
    """To be called by one process of the project at a time."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        Schema([ColSpec("string")]),
        Schema([ColSpec("string")]),
        ParamSchema(
            [
                ParamSpec("max_new_tokens", "long", 128),
                ParamSpec("temperature", "double", 0.0),
                ParamSpec("weights", "string", "model"),
            ]
        ),
    )
    store = open_store(mlflow.MlflowClient(), root)
    mlflow.set_experiment(experiment_id=store.experiment_id)
    results = json.loads((root / "reports" / "evaluate.json").read_text(encoding="utf-8"))
    metrics = {name: v for name, v in flatten(results).items() if isinstance(v, int | float)}
    home = config.home_root(root)
    origin = f"{socket.gethostname()}:{home}"  # other projects may be registering versions too
    _end_killed(mlflow.MlflowClient(), store.experiment_id, origin)
    mark = {"headrace.kind": "register", "headrace.origin": origin}
    with _empty_folder(home / FOLDER / ".staged") as folder:
        tags, staged = _stage(root, key, folder)
        with (
            upload_faults_typed("the model"),
            mlflow.start_run(run_name=f"register {key}", tags=mark | tags),
        ):
            mlflow.log_metrics({name: float(value) for name, value in metrics.items()})
            for page in ("results.md", "results.png", "samples.md"):
                if (root / "artifacts" / "evaluate" / page).exists():
                    mlflow.log_artifact(str(root / "artifacts" / "evaluate" / page))
            for report in sorted((root / "reports").glob("*.json")):
                mlflow.log_artifact(str(report), "reports")
            if (root / ITEMS).exists():
                mlflow.log_artifact(str(root / ITEMS), ITEMS.parent.as_posix())
            mlflow.log_artifacts(str(folder / "reproduce"), "reproduce")
            with warnings.catch_warnings():  # the signature is given, no example is needed for it
                warnings.filterwarnings("ignore", ".*An input example was not provided")
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(Path(__file__).parent / "served_model.py"),
                    artifacts={name: str(path) for name, path in staged.items()},
                    signature=signature,
                    pip_requirements=_requirements(
                        "transformers", "torch", "compressed-tensors", "mlflow", "pandas"
                    ),
                )
        # Tags go in with the version, so that no version is ever seen without its key.
        version = mlflow.MlflowClient().create_model_version(
            _ensure_name(),
            info.model_uri,
            run_id=info.run_id,
            tags=tags | {f"metric.{name}": f"{value:.12g}" for name, value in metrics.items()},
            model_id=info.model_id,
        )
    return _only_version(key, str(version.version), info.run_id)


def _stage(root: Path, key: str, folder: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """Put what a version is made of below `folder`; the tags that tell of it, and where the weights are.

    An upload takes minutes, in which people go on to the next experiment. Raises InfraError if
    anything was changed while it was put there.
    """
    # MLflow names an artifact by its folder's last part, and both are called `model`.
    staged = {name: folder / name for name in WEIGHTS}
    for name, path in WEIGHTS.items():
        publish_tree(root / path, staged[name])
    (folder / "reproduce").mkdir()
    for name in REPRODUCE:
        shutil.copy(root / name, folder / "reproduce" / name)
    tags = version_tags(root, key)
    if prepare(root, "evaluate").run.key != key:
        raise InfraError(
            "params, code or data were changed since the model was evaluated", "run it again"
        )
    return tags, staged


@contextmanager
def _empty_folder(path: Path) -> Iterator[Path]:
    """Removed afterwards, and before: a kill may have left one."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _ensure_name() -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient().create_registered_model(
            MODEL_NAME,
            description="Models that came out of the pipeline; one version an evaluation.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return MODEL_NAME


def version_tags(root: Path, key: str) -> dict[str, str]:
    """What joins a version to its origin: commit, keys, and digests of weights and data."""
    from components.section import read_yaml

    lock = (
        (read_yaml(root / "dvc.lock") or {}).get("stages", {})
        if (root / "dvc.lock").exists()
        else {}
    )
    tags = {
        "headrace.stage_key": key,
        "headrace.git_commit": git_commit(root),
        "headrace.weights_sha256": digest_tree(root / WEIGHTS["model"]),
        "headrace.quantized_sha256": digest_tree(root / WEIGHTS["quantized"]),
    }
    for stage, entry in lock.items():
        for out in entry.get("outs", []):
            if out["path"].startswith("artifacts/"):
                tags[f"headrace.data.{stage}"] = out.get("md5", "")
    return tags


def _requirements(*names: str) -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in names]


def generate(uri: str, prompts: list[str], **params: Any) -> list[str]:
    """Answers of a registered version, loaded from the registry and nowhere else.

    Raises UserError for an address that is none or names nothing, InfraError if MLflow or its files
    are away, DataError if the version does not load or answer.
    """
    if not re.fullmatch(r"models:/[^/@]+(/[^/]+|@[^/]+)", uri):
        raise UserError(f"{uri}: no address of a model", f"as in models:/{MODEL_NAME}/1")
    import mlflow

    with _files_of(uri) as folder:
        try:
            answers: Json = mlflow.pyfunc.load_model(str(folder)).predict(prompts, params=params)
            return [str(answer) for answer in answers]
        except MemoryError:
            raise
        except Exception as error:  # a version brings code of its own
            raise disk_error(error, folder) or DataError(
                f"{uri} in {registry_uri()} does not answer: {first_line(error)}",
                "`headrace models` lists the others",
            ) from error


@contextmanager
def _files_of(uri: str) -> Iterator[Path]:
    """A version's files while the body runs: where they lie if that is a folder here, else a copy."""
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
    from mlflow.utils.uri import is_local_uri

    nothing = f"{uri} in {registry_uri()}: no such version"
    with tempfile.TemporaryDirectory(prefix="headrace-version-") as copy:
        with download_faults_typed(uri):
            with absence_typed(nothing, "`headrace models` lists them"):
                place = ModelsArtifactRepository.get_underlying_uri(uri)
            folder = download_artifacts(
                artifact_uri=uri, dst_path=None if is_local_uri(place) else copy
            )
        yield Path(folder)
