"""A real Prefect server that is away for longer than Prefect's own runner waits, under a running flow."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tasks.process import started_ticks
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import Console
from tests.integration.tasks.processes import pods_of, wait_for, working_in

pytestmark = pytest.mark.timeout(600)

AWAY_S = 30.0
"""Prefect's runner gives up at the third poll without an answer: each 5 s, if a call is tried twice."""


def test_after_a_server_was_away_for_long_its_runs_go_on_and_new_ones_start_and_are_cancelled(
    project: Path,
) -> None:
    console = Console(project)
    console.ports["PREFECT_CLIENT_MAX_RETRIES"] = "1"  # a busy server asks flows, too, to ask again
    toy.set_param(project, "left", text="P")
    assert console.headrace("up").returncode == 0
    try:
        with toy.held(project):
            run = console.start("pipeline")
            wait_for(lambda: pods_of(project))
            known = working_in(project, "-m flows.deployments").keys(), pods_of(project)
            server = json.loads((project / ".headrace/console/prefect.json").read_text())["pid"]
            os.kill(server, signal.SIGTERM)
            wait_for(lambda: started_ticks(server) is None)
            time.sleep(AWAY_S)
            assert (working_in(project, "-m flows.deployments").keys(), pods_of(project)) == known
            assert console.headrace("up").returncode == 0
        assert console.end_of(run)["type"] == "COMPLETED", console.state(run)
        toy.set_param(project, "left", text="Q")
        with toy.held(project):
            run = console.start("pipeline")
            wait_for(lambda: pods_of(project))
            console.cancel(run)
            wait_for(lambda: not pods_of(project))
            assert console.end_of(run)["type"] == "CANCELLED"
    finally:
        console.headrace("down")
