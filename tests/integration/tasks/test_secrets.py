"""Secrets are planted wherever a project meets them, and looked for wherever it writes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for

SECRETS = {
    "HEADRACE_RATER_KEY": "planted-rater-key",
    "HEADRACE_RATER_URL": "https://jane:planted-rater-password@rater.example/v1?api_key=planted-query",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDID",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret",
    "HF_TOKEN": "hf_planted",
    "MLFLOW_TRACKING_USERNAME": "jane",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "PGPASSWORD": "planted-postgres",
    "FSSPEC_HTTPS": '{"client_kwargs": {"headers": {"Authorization": "Bearer planted-header"}}}',
    "PREFECT_API_AUTH_STRING": "jane:planted-prefect-password",
}
PLANTED = (b"planted", b"PLANTED")

TELLTALE = """

import logging
import os
from components.pool import map_ordered

def run(params, io, sink):
    everything = " ".join(os.environ.values())
    url = "https://jane:planted-address@data.example/a.txt?token=planted-token"
    print(everything)
    print(everything, file=sys.stderr)
    list(map_ordered(print, [everything] * 2, 2))
    sink.info(f"fetching {url}")
    logging.warning("fetching %s with %s", url, os.environ["HF_TOKEN"])
    raise ConnectionError(f"cannot connect to {url} with {os.environ['AWS_SECRET_ACCESS_KEY']}")
"""


def told(folder: Path) -> list[str]:
    """Files of the project, DVC's, MLflow's and Prefect's among them, that hold a planted secret."""
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return [
        str(path.relative_to(folder))
        for path in sorted(paths)
        if {".git", "components"}.isdisjoint(path.relative_to(folder).parts)
        and any(planted in content(path) for planted in PLANTED)
    ]


def content(path: Path) -> bytes:
    """Nothing of a file that is gone, as a database's journal is after each of its changes."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_what_a_stage_says_of_the_environments_secrets_reaches_no_file_of_dvc_mlflow_or_prefect(
    project: Path,
) -> None:
    (project / "mlflow.db").unlink()  # a store of its own, with its files below the project
    toy.add_code(project, "left", TELLTALE)
    done = toy.run(
        project, sys.executable, "-m", "tasks.cli", "stage", "left", check=False, **SECRETS
    )
    assert done.returncode == 70
    assert "cannot connect to https://***@data.example/a.txt?token=*** with ***" in done.stdout
    assert "planted" not in done.stdout.lower()
    fetching = "left: fetching https://***@data.example/a.txt?token=***"
    logs = project / "mlruns"
    wait_for(lambda: any(fetching in log.read_text() for log in logs.rglob("log.txt")))
    toy.run(project, "flock", "runs/.mirror.lock", "true")
    assert "cannot connect to" in prefects_database(project)
    assert told(project) == []


def prefects_database(project: Path) -> str:
    (path,) = (project / ".headrace" / "prefect").glob("*.db")
    return "".join(
        content(each).decode(errors="replace") for each in path.parent.glob(f"{path.name}*")
    )


def test_servers_that_are_away_are_named_without_their_passwords(project: Path) -> None:
    toy.set_param(project, "left", text="S")
    environ = SECRETS | {
        "MLFLOW_TRACKING_URI": "http://jane:planted-mlflow@127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "HEADRACE_FLOW_RUN": "none, and so no mirror in the background",
    }
    toy.run(project, sys.executable, "-m", "tasks.launch", "left", **environ)
    mirror = [sys.executable, "-m", "tasks.tracking", "--wait-s", "0"]
    done = wait_for(lambda: said_by(toy.run(project, *mirror, **environ)))
    assert "MLflow did not take the figures" in done
    assert "planted" not in done.lower()
    assert told(project) == []


def said_by(done: "subprocess.CompletedProcess[str]") -> str:
    """Empty where the mirror found another at work."""
    return done.stdout
