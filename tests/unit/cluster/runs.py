"""A run's folder as `tasks.launch` leaves it for a launcher, and what a pod writes into it."""

import json
from pathlib import Path

import pytest

from tasks import outcome
from tasks.claim import HOLDER, PLACES
from tasks.cluster import api, cancel, following, signature, watching
from tasks.outcome import Outcome
from tasks.run_dir import RunDir

STAGE, KEY, ATTEMPT = "pretrain", "0123456789ab", 1
PROJECT = "abcdef01"


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a launcher look and ask again at once."""
    for module, name, value in (
        (following, "TICK_S", 0.005), (following, "RESULT_WAIT_S", 0.06), (following, "RESULT_POLL_S", 0.005),
        (cancel, "POLL_S", 0.005), (cancel, "PATIENCE_S", 0.05), (signature, "INTERVAL_S", 0.005),
        (api, "PAUSES_S", (0.005,)), (watching, "PAUSES_S", (0.005,)),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


def run_folder(root: Path) -> RunDir:
    run = RunDir(root, STAGE, KEY)
    run.path.mkdir(parents=True)
    request = {
        "stage": STAGE, "key": KEY, "attempt": ATTEMPT, "flow_run": "", "code": {},
        "avoid_nodes": ["sick"],
    }  # fmt: skip
    run.request.write_text(json.dumps(request))
    return run


def said(kind: str, exit_code: int, message: str = "", attempt: int = ATTEMPT) -> Outcome:
    return Outcome(
        STAGE, KEY, kind, exit_code, message, "", "dev-1", attempt, 1.0, 2.0, 0.5
    )  # fmt: skip


def pod_says(run: RunDir, pod: str, ended: Outcome | None) -> None:
    """As a pod that holds the run, and with `ended` has come to its end."""
    place = run.path / PLACES / pod
    place.mkdir(parents=True, exist_ok=True)
    outcome.write_json(run.path / PLACES / HOLDER, {"pod": pod, "settled": False})
    if ended is not None:
        outcome.write(place, ended)
