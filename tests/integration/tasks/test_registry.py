"""The registry with a real store and a small real model."""

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

from components.errors import DataError, InfraError, StageError, UserError
from tasks import config, registry
from tasks.mlflow_faults import registry_uri
from tasks.registry import generate, register
from tests.integration.tasks.registered import evaluated


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with MLflow's tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def root(tmp_path: Path, empty_store: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose models are evaluated."""
    evaluated(tmp_path)
    monkeypatch.setattr(
        registry, "prepare", lambda *_: SimpleNamespace(run=SimpleNamespace(key="k"))
    )
    use_store(tmp_path, "mlflow.db", empty_store, monkeypatch)
    return tmp_path


def use_store(
    root: Path, name: str, empty_store: bytes, monkeypatch: pytest.MonkeyPatch
) -> MlflowClient:
    (root / name).write_bytes(empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / name}")
    return MlflowClient()


def versions() -> list[int]:
    return sorted(int(v.version) for v in MlflowClient().search_model_versions("name='headrace'"))


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register versions without weights, which answer nothing."""

    def create(root: Path, key: str) -> str:
        client = MlflowClient()
        time.sleep(0.3)  # long enough for another to look in between
        store = registry.open_store(client, root)
        run = client.create_run(store.experiment_id)
        version = client.create_model_version(
            registry._ensure_name(), root.as_uri(), run_id=run.info.run_id,
            tags={"headrace.stage_key": key},
        )  # fmt: skip
        return registry._only_version(key, str(version.version), run.info.run_id)

    monkeypatch.setattr(registry, "_create_version", create)
    monkeypatch.setattr(registry, "generate", lambda *_: ["an answer"])


def test_a_version_is_registered_once_quietly_with_what_it_takes_to_compute_it_again(
    root: Path,
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registered, new = register(root)
        generate("models:/headrace/1", ["What is a bucket?"], max_new_tokens=2)
    said = "\n".join(str(warning.message) for warning in caught)
    assert "type hints" not in said
    assert "input example" not in said
    assert (registered.uri, new) == ("models:/headrace/1", True)
    assert register(root) == (registered, False)
    client = MlflowClient()
    run_id = client.get_model_version("headrace", "1").run_id
    assert [file.path for file in client.list_artifacts(run_id, "reproduce")] == [
        "reproduce/dvc.lock", "reproduce/dvc.yaml", "reproduce/params.yaml",
    ]  # fmt: skip
    (root / "runs" / "registry" / "k.json").unlink()
    assert register(root) == (registered, True)
    assert versions() == [1]


def test_params_reach_the_model_and_a_list_of_prompts_gives_as_many_answers(root: Path) -> None:
    register(root)
    prompts = ["What is a bucket?", "What is an object?"]
    short = generate("models:/headrace/1", prompts, max_new_tokens=1)
    long = generate("models:/headrace/1", prompts, max_new_tokens=40, weights="quantized")
    assert len(short) == len(long) == 2
    assert all(len(a) < len(b) for a, b in zip(short, long, strict=True))


def test_another_server_gets_a_version_of_its_own(
    root: Path, empty_store: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    first, _ = register(root)
    use_store(root, "team.db", empty_store, monkeypatch)
    second, new = register(root)
    assert (second.uri, new, versions()) == ("models:/headrace/1", True, [1])
    assert (first.registry, second.registry) == tuple(
        f"sqlite:///{root / name}" for name in ("mlflow.db", "team.db")
    )


def test_a_version_that_is_gone_from_its_registry_is_registered_again(
    root: Path, empty_store: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    register(root)
    assert register(root)[1] is False
    MlflowClient().delete_model_version("headrace", "1")
    registered, new = register(root)
    assert (registered.version, new, versions()) == ("2", True, [2])
    use_store(root, "mlflow.db", empty_store, monkeypatch)  # wiped
    registered, new = register(root)
    assert (registered.version, new, versions()) == ("1", True, [1])


def test_a_registration_after_a_killed_one_ends_its_run_and_clears_its_files(root: Path) -> None:
    program = (
        "import os, signal, sys, mlflow\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from tasks import registry\n"
        "registry.prepare = lambda *_: SimpleNamespace(run=SimpleNamespace(key='k'))\n"
        "mlflow.pyfunc.log_model = lambda **_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "registry._create_version(Path.cwd(), 'k')\n"
    )
    died = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL
    staged = root / registry.FOLDER / ".staged"
    assert sorted(path.name for path in staged.iterdir()) == ["model", "quantized", "reproduce"]
    client = MlflowClient()
    others = client.create_run(
        "1", tags={"headrace.kind": "register", "headrace.origin": "another:/project"}
    )
    register(root)
    states = sorted(run.info.status for run in client.search_runs(["1"]))
    assert states == ["FINISHED", "KILLED", "RUNNING"]
    assert client.get_run(others.info.run_id).info.status == "RUNNING"
    assert not staged.exists()
    assert not list((root / "runs").glob("tmp*"))


class Elsewhere(ArtifactRepository):
    """A store that is no folder to MLflow, with its files in one."""

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        folder = self._folder / (path or "")
        return [
            FileInfo(str(item.relative_to(self._folder)), item.is_dir(), item.stat().st_size)
            for item in (folder.iterdir() if folder.is_dir() else [])
        ]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        shutil.copy(self._folder / remote_file_path, local_path)

    @property
    def _folder(self) -> Path:
        return Path(urlsplit(self.artifact_uri).path)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        raise NotImplementedError

    log_artifacts = log_artifact


def test_a_version_leaves_no_copy_of_its_files_behind_and_one_in_a_folder_is_not_copied(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(root)
    (weights,) = root.glob("mlruns/**/artifacts/model/*.safetensors")
    kept = weights.parents[2]
    monkeypatch.setitem(_artifact_repository_registry._registry, "elsewhere", Elsewhere)
    MlflowClient().create_model_version("headrace", f"elsewhere://store{kept}")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with registry._files_of("models:/headrace/1") as folder:
        assert folder == kept
    with registry._files_of("models:/headrace/2") as folder:
        assert temporary in folder.parents
        copied = folder / weights.relative_to(kept)
        assert copied.read_bytes() == weights.read_bytes()
    answers = [generate(f"models:/headrace/{number}", ["?"]) for number in (1, 2)]
    assert answers[0] == answers[1]
    assert list(temporary.iterdir()) == []


def test_weights_that_were_cut_short_are_the_versions_fault(root: Path) -> None:
    register(root)
    (weights,) = root.glob("mlruns/**/artifacts/model/*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        DataError, match=r"models:/headrace/1 in sqlite.* does not answer"
    ) as caught:
        generate("models:/headrace/1", ["?"])
    assert len(caught.value.line.splitlines()) == 1


def test_the_note_names_the_server_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example:8000/x")
    assert registry_uri() == "https://mlflow.example:8000/x"


def test_two_registrations_at_once_give_one_version(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    said: list[tuple[str, bool]] = []

    def one() -> None:
        registered, new = register(root)
        said.append((registered.version, new))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [("1", False), ("1", True)]
    assert versions() == [1]


def test_of_two_machines_that_register_at_once_the_newer_version_goes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    find, looked = registry.find_version, []

    def find_nothing_at_first(key: str) -> str | None:
        looked.append(key)
        return find(key) if len(looked) > 1 else None

    register(root)
    (root / "runs" / "registry" / "k.json").unlink()
    monkeypatch.setattr(registry, "find_version", find_nothing_at_first)
    registered, _ = register(root)
    assert (registered.version, versions()) == ("1", [1])
    experiment = MlflowClient().get_experiment_by_name("headrace")
    assert experiment is not None
    assert len(MlflowClient().search_runs([experiment.experiment_id])) == 1


def test_params_that_are_edited_while_a_version_is_uploaded_are_not_the_versions(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_metrics = mlflow.log_metrics

    def log_and_edit(*arguments: Any) -> None:
        (root / "params.yaml").write_text("edited: true\n")
        log_metrics(*arguments)

    monkeypatch.setattr(mlflow, "log_metrics", log_and_edit)
    register(root)
    run_id = str(MlflowClient().get_model_version("headrace", "1").run_id)
    kept = MlflowClient().download_artifacts(run_id, "reproduce/params.yaml", str(root / "runs"))
    assert Path(kept).read_text() == "{}\n"


def test_a_model_whose_params_are_edited_as_its_registration_begins_is_postponed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = registry.publish_tree

    def stage_and_edit(source: Path, target: Path) -> None:
        stage(source, target)
        (root / "params.yaml").write_text("edited: true\n")

    def key(*_: object) -> SimpleNamespace:
        return SimpleNamespace(run=SimpleNamespace(key=(root / "params.yaml").read_text().strip()))

    monkeypatch.setattr(registry, "publish_tree", stage_and_edit)
    monkeypatch.setattr(registry, "prepare", key)
    with pytest.raises(InfraError, match="params, code or data were changed"):
        register(root)
    assert versions() == []


class S3UploadFailedError(Exception):
    """As boto3's: no OSError, and none of MLflow's."""


class Refusing(Elsewhere):
    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        raise S3UploadFailedError(f"Failed to upload {local_file}: https://jane:planted@s3.example")

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        self.log_artifact(local_dir)


def test_a_store_of_files_that_refuses_the_weights_postpones_the_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_artifact_repository_registry._registry, "elsewhere", Refusing)
    monkeypatch.setattr(config, "artifact_location", lambda _: "elsewhere://bucket/mlflow")
    with pytest.raises(InfraError) as caught:
        register(root)
    assert caught.value.message.startswith(
        "the registry did not take the model: the store of MLflow's files does not take the model"
    )
    assert "planted" not in caught.value.line
    assert len(caught.value.line.splitlines()) == 1


def test_an_s3_store_that_is_away_postpones_the_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1",
        "AWS_ACCESS_KEY_ID": "planted-id", "AWS_SECRET_ACCESS_KEY": "planted-secret",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(config, "artifact_location", lambda _: "s3://bucket/mlflow")
    with pytest.raises(InfraError, match='Could not connect to the endpoint URL: "http') as caught:
        register(root)
    assert len(caught.value.line.splitlines()) == 1
    assert "planted" not in caught.value.line


def test_a_model_that_does_not_answer_once_it_is_registered_is_not_called_postponed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "artifacts" / "dpo" / "model" / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"models:/headrace/1 in sqlite.* does not answer"):
        register(root)


@pytest.mark.parametrize("uri", ["headrace/1", "models:/headrace", "models:/a/b/c", "/etc"])
def test_an_address_that_is_none_is_the_users_fault(uri: str) -> None:
    with pytest.raises(UserError, match="no address of a model"):
        generate(uri, ["?"])


@pytest.mark.parametrize(
    ("uri", "server", "kind"),
    [
        ("models:/headrace/7", "", UserError),
        ("models:/headrace/nine", "", UserError),
        ("models:/nobody/1", "", UserError),
        ("models:/headrace@best", "", UserError),
        ("models:/headrace/1", "http://me:secret@127.0.0.1:9", InfraError),
        ("models:/headrace/1", "nonsense://x", UserError),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line_that_says_who_must_act(
    root: Path, monkeypatch: pytest.MonkeyPatch, uri: str, server: str, kind: type[StageError]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with pytest.raises(StageError) as caught:
        generate(uri, ["?"])
    assert type(caught.value) is kind
    assert caught.value.message.startswith(uri)
    assert len(caught.value.message.splitlines()) == 1
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "server", ["http://me:secret@127.0.0.1:9", "sqlite:///{root}/params.yaml"],
    ids=["away", "a database that is none"],
)  # fmt: skip
def test_a_registry_that_does_not_answer_postpones_the_model(
    root: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.format(root=root))
    with pytest.raises(InfraError, match="the registry did not take the model") as caught:
        register(root)
    assert "secret" not in caught.value.message
