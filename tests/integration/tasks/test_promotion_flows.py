"""The flows that move the alias, on a Prefect server."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from prefect.artifacts import Artifact
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.promote import promote, rollback
from tasks import journal
from tests.integration.tasks.registered import champion, register, registry_in


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_api: str) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with (
        registry_in(tmp_path, monkeypatch) as folder,
        temporary_settings({PREFECT_API_URL: prefect_api}),
    ):
        yield folder


def test_the_flows_promote_show_the_verdict_and_go_back(project: Path) -> None:
    for loss in (1.5, 1.4):
        register(project, loss)
    promote("1", return_state=True)
    state = promote(return_state=True)
    assert (state.type.value, state.message) == ("COMPLETED", "version 2 is champion")
    shown = Artifact.get("verdict")
    assert shown is not None
    assert shown.description == "version 2"
    assert shown.data.startswith("`headrace` version 2 is champion now.")
    assert "| loss.dpo | 1.4000 ± 0.1000 | 1.5000 ± 0.1000 |" in shown.data
    state = rollback("slow", return_state=True)
    assert (state.type.value, state.message) == (
        "COMPLETED", "version 1 is champion again, after 2: slow",
    )  # fmt: skip
    assert champion() == "1"
    assert journal.read(MlflowClient())[-1].why == "slow"


def test_a_flow_that_does_not_promote_names_the_gates(project: Path) -> None:
    register(project, 2.5)
    state = promote(return_state=True)
    assert (state.type.value, state.message) == ("FAILED", "version 1 is not promoted: loss.dpo")
    assert champion() == ""
    state = rollback("slow", return_state=True)
    assert state.type.value == "FAILED"
    assert state.message.startswith("user error: there is no champion to go back to")


def test_a_flow_without_mlflow_fails_in_one_line_without_its_password(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = "http://jane:planted-pw@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", away)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(away)
    for state in (promote(return_state=True), rollback("why", return_state=True)):
        assert state.type.value == "FAILED"
        assert state.message.startswith("infra error: MLflow at http://127.0.0.1:9 does not answer")
        assert "planted" not in state.message
