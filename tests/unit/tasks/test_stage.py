"""The one task: what it does not begin."""

from pathlib import Path

import pytest

from components.errors import InfraError
from components.train import stop
from tasks import stage
from tasks.stage import run_stage


def test_a_stage_whose_turn_comes_after_the_run_was_cancelled_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "is_requested", lambda: True)
    monkeypatch.setattr(stage, "reproduce", lambda *_, **__: pytest.fail("began"))
    state = run_stage.fn("clean", str(tmp_path))
    assert state.is_failed()
    assert isinstance(state.data, InfraError)
    assert state.message == "infra error: clean: stopped before it began; run it again"
