"""Kills at random moments; `python -m tests.kill` does as many as one likes."""

from pathlib import Path

import pytest

from tests import kill

SEED = 2402


@pytest.mark.timeout(1800)
def test_whatever_is_killed_the_same_command_again_finishes_the_job(tmp_path: Path) -> None:
    trials = kill.run_trials(tmp_path, 10, SEED, kill.TARGETS)
    assert [trial for trial in trials if trial.faults] == []
    assert sum(bool(trial.hit) for trial in trials) >= 5
