"""What the console starts, by what the environment gives."""

from pathlib import Path

import pytest

from tasks.config import load_settings
from tasks.console import services

OURS = ("--backend-store-uri", "--default-artifact-root")


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, OURS),
        ({"MLFLOW_BACKEND_STORE_URI": ""}, OURS),
        ({"MLFLOW_BACKEND_STORE_URI": "postgresql://u:secret@host/db"}, OURS[1:]),
        ({"MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://bucket"}, OURS[:1]),
    ],
)
def test_a_store_of_a_teams_own_is_left_to_the_environment(
    tmp_path: Path, given: dict[str, str], options: tuple[str, ...]
) -> None:
    (mlflow,) = [one for one in services(tmp_path, load_settings(), given) if one.name == "mlflow"]
    assert tuple(word for word in OURS if word in mlflow.command) == options
    assert not any("secret" in word for word in mlflow.command)


def test_a_server_of_a_teams_own_is_not_started(tmp_path: Path) -> None:
    given = {"PREFECT_API_URL": "http://a/api", "MLFLOW_TRACKING_URI": "http://b"}
    assert [one.name for one in services(tmp_path, load_settings(), given)] == ["deployments"]
