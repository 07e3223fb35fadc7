"""Kills at random moments; `python -m tests.cluster.kill` does as many as one likes."""

import pytest

from tests.cluster import kill

SEED = 2049
"""Draws five targets: the API server, the node controller, Kueue, `launch` and the flow."""


@pytest.mark.timeout(1200)
def test_whatever_is_killed_the_same_command_again_finishes_the_job(prefect_api: str) -> None:
    trials = kill.run_trials(5, SEED, kill.TARGETS, prefect_api)
    assert [trial for trial in trials if trial.faults] == []
    assert sum(bool(trial.hit) for trial in trials) >= 3
