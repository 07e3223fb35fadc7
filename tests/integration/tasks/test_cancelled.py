"""Which processes of cancelled flow runs are ended, and what a real Prefect server is told."""

import asyncio
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import cancelled
from tasks.flow_record import FlowRecord, record_path
from tasks.process import started_ticks
from tests.integration.tasks.consoles import call
from tests.integration.tasks.processes import wait_for
from tests.integration.tasks.test_dead_flows import running, state


@pytest.fixture
def api(prefect_api: str) -> Iterator[str]:
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api


@pytest.fixture
def started() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        if started_ticks(pid) is not None:
            os.kill(pid, signal.SIGKILL)


def elsewhere(home: Path, run: str, started: list[int], before: str = ":") -> int:
    """The process of a flow run that is no child of this one; it inherits what `before` did."""
    script = f"{before}; sleep 300 >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    started.append(pid)
    record = FlowRecord(run, 99.0, os.uname().nodename, pid, started_ticks(pid) or 0)
    record_path(home, run).parent.mkdir(parents=True, exist_ok=True)
    record_path(home, run).write_text(json.dumps(vars(record)))
    return pid


def cancel(api: str, run: str) -> None:
    wanted = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    assert call(f"{api}/flow_runs/{run}/set_state", wanted)["status"] == "ACCEPT"


def delete(api: str, run: str) -> None:
    request = urllib.request.Request(f"{api}/flow_runs/{run}", method="DELETE")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 204


def look(home: Path, asked: dict[str, float]) -> None:
    asyncio.run(cancelled.end(home, asked, set()))


def is_gone(pid: int) -> bool:
    return started_ticks(pid) is None


def test_a_cancelled_run_is_ended_and_called_so_and_another_is_left_alone(
    tmp_path: Path, api: str, started: list[int]
) -> None:
    asked: dict[str, float] = {}
    ended, other = running(api), running(api)
    first, second = (elsewhere(tmp_path, run, started) for run in (ended, other))
    cancel(api, ended)
    look(tmp_path, asked)
    wait_for(lambda: is_gone(first))
    look(tmp_path, asked)
    assert (state(api, ended), state(api, other)) == ("CANCELLED", "RUNNING")
    assert not is_gone(second)
    assert asked == {}


def test_a_run_that_was_deleted_after_its_cancellation_holds_up_no_other(
    tmp_path: Path, api: str, started: list[int]
) -> None:
    asked: dict[str, float] = {}
    deleted, other = running(api), running(api)
    first = elsewhere(tmp_path, deleted, started)
    cancel(api, deleted)
    look(tmp_path, asked)
    delete(api, deleted)
    wait_for(lambda: is_gone(first))
    second = elsewhere(tmp_path, other, started)
    cancel(api, other)
    look(tmp_path, asked)
    wait_for(lambda: is_gone(second))


def test_one_that_ignores_the_signal_is_killed_after_its_grace(
    tmp_path: Path, api: str, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, float] = {}
    run = running(api)
    pid = elsewhere(tmp_path, run, started, before="trap '' TERM")
    cancel(api, run)
    look(tmp_path, asked)
    look(tmp_path, asked)
    assert not is_gone(pid)
    monkeypatch.setattr(cancelled, "GRACE_S", 0.0)
    look(tmp_path, asked)
    wait_for(lambda: is_gone(pid))
    look(tmp_path, asked)
    assert state(api, run) == "CANCELLED"


def test_a_child_of_this_process_is_its_runners(
    tmp_path: Path, api: str, started: list[int]
) -> None:
    run = running(api)
    with subprocess.Popen(["sleep", "300"]) as child:
        record = FlowRecord(run, 9.0, os.uname().nodename, child.pid, started_ticks(child.pid) or 0)
        record_path(tmp_path, run).parent.mkdir(parents=True)
        record_path(tmp_path, run).write_text(json.dumps(vars(record)))
        cancel(api, run)
        look(tmp_path, asked := {})
        assert asked == {}
        assert child.poll() is None
        child.kill()
