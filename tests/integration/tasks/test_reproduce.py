"""`headrace reproduce` on the toy project, with a version whose run holds what a real one's does."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.errors import DataError, UserError
from tasks.registry import MODEL_NAME, REPRODUCE
from tests.integration.tasks import toy
from tests.integration.tasks.processes import pods_of, started_run, wait_for

COMMAND = [sys.executable, "-m", "tasks.cli", "reproduce", f"models:/{MODEL_NAME}/1"]


@pytest.fixture
def version(project: Path) -> Path:
    """The project of version 1, whose `left` takes three seconds; and the clone to be."""
    shutil.copytree(toy.ROOT / "components" / "gates", project / "components" / "gates")
    toy.set_param(project, "left", num_steps=60, step_s=0.05)
    toy.dvc(project, "repro")
    toy.commit(project, "Register this")
    commit = toy.run(project, "git", "rev-parse", "HEAD").stdout.strip()
    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    experiment = client.create_experiment("models", (project / "mlruns").as_uri())
    run_id = client.create_run(experiment).info.run_id
    for name in REPRODUCE:
        client.log_artifact(run_id, str(project / name), "reproduce")
    client.log_dict(run_id, {"loss": {"dpo": 1.0}}, "reports/evaluate.json")
    client.create_registered_model(MODEL_NAME)
    client.create_model_version(
        MODEL_NAME, project.as_uri(), run_id, tags={"headrace.git_commit": commit}
    )
    return project


def test_a_reproduction_that_was_killed_goes_on_where_it_stopped_and_a_second_one_waits_for_it(
    version: Path,
) -> None:
    clone = version / ".headrace" / "reproductions" / f"{MODEL_NAME}-1"
    killed = subprocess.Popen(
        COMMAND, cwd=version, env=toy.environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    run = wait_for(lambda: started_run(clone / "runs" / "left"))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    wait_for(lambda: not pods_of(clone))
    assert json.loads((clone / "runs" / "reproduction.json").read_text())["todo"] == [
        "left", "right", "join",
    ]  # fmt: skip
    (report,) = version.glob("mlruns/**/reports/evaluate.json")
    report.unlink()  # MLflow was asked for all that it takes at the beginning
    with toy.held(clone):
        first = subprocess.Popen(
            COMMAND, cwd=version, env=toy.environment(), text=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        wait_for(lambda: pods_of(clone))
        second = subprocess.Popen(
            COMMAND, cwd=version, env=toy.environment(), text=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert second.stdout is not None
        assert f"waiting for process {first.pid} (" in second.stdout.readline()
        second.kill()
        second.communicate()
    said = first.communicate()[0]
    assert f"going on in {clone}" in said
    assert "computing source" not in said
    assert said.count("  equal") == 4
    assert said.strip().endswith(f"{MODEL_NAME} version 1: bit-equal")
    assert (run / "work" / "started").read_text() == "xx"
    assert not (clone / "runs" / "reproduction.json").exists()


def test_a_version_without_figures_to_compare_with_is_refused_before_anything_is_computed(
    version: Path,
) -> None:
    (report,) = version.glob("mlruns/**/reports/evaluate.json")
    report.unlink()
    done = toy.run(version, *COMMAND, check=False)
    assert done.returncode == UserError.exit_code
    assert "user error: the version keeps no reports/evaluate.json" in done.stdout
    assert "computing" not in done.stdout


def test_data_that_are_nowhere_to_be_had_are_no_bug_and_nothing_is_computed(version: Path) -> None:
    shutil.rmtree(version / ".dvc" / "cache")
    done = toy.run(version, *COMMAND, "--from", "join", check=False)
    assert done.returncode == DataError.exit_code
    assert "data error: artifacts/source, artifacts/left, artifacts/right as the" in done.stdout
    assert "computing" not in done.stdout
