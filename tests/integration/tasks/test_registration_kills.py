"""Kills of a registration; `python -m tests.kill_registration` does as many as one likes."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.registry import MODEL_NAME
from tests import kill_registration
from tests.integration.tasks.processes import wait_for

SEED = 2402


@pytest.mark.timeout(900)
def test_a_registration_that_is_killed_is_never_half_visible_and_the_next_leaves_one_version(
    tmp_path: Path,
) -> None:
    trials = kill_registration.run_trials(tmp_path, 5, SEED)
    assert [trial for trial in trials if trial.faults] == []
    assert sum(bool(trial.hit) for trial in trials) >= 3


@pytest.mark.parametrize(
    ("tags", "fault"),
    [({"headrace.stage_key": "k"}, "version 1 did not answer: "), ({}, "version 1 had no key")],
)
def test_half_of_a_version_is_a_fault(tmp_path: Path, tags: dict[str, str], fault: str) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    client.create_registered_model(MODEL_NAME)
    with kill_registration.Reader(client) as reader:
        client.create_model_version(MODEL_NAME, tmp_path.as_uri(), tags=tags)
        wait_for(lambda: reader.faults)
    assert reader.faults[0].startswith(fault)
