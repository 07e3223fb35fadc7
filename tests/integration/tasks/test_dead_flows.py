"""What a real Prefect server is told of flow runs whose process is gone, and is not asked twice."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import dead_flows, run_here
from tasks import flow_record
from tasks.flow_record import FlowRecord, record_path
from tasks.process import started_ticks
from tests.integration.tasks.consoles import call


@pytest.fixture
def api(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(dead_flows, "HEAD_START_S", 0.0)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api


def running(api: str) -> str:
    """A flow run that the server calls running."""
    flow = call(f"{api}/flows/", {"name": "f"})
    body = {"flow_id": flow["id"], "state": {"type": "RUNNING"}}
    return str(call(f"{api}/flow_runs/", body)["id"])


def state(api: str, run: str) -> str:
    return str(call(f"{api}/flow_runs/{run}")["state"]["type"])


def record(home: Path, run: str, **values: Any) -> Path:
    """Of a flow run whose process is gone, unless `values` name another."""
    path = record_path(home, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = FlowRecord(run, 99.0, os.uname().nodename, os.getpid(), 1)
    path.write_text(json.dumps(vars(made) | values))
    return path


def tell(home: Path) -> set[str]:
    """What a serving process that has just started is done with after its first look."""
    done: set[str] = set()
    asyncio.run(dead_flows.tell(home, done))
    return done


def test_a_run_is_told_once_and_who_starts_later_asks_nothing_more(
    tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, living, unknown = running(api), running(api), "0" * 8 + "-0000-4000-8000-" + "0" * 12
    for run in (dead, unknown):
        record(tmp_path, run)
    record(tmp_path, living, ticks=started_ticks(os.getpid()))
    assert tell(tmp_path) == {dead, unknown}
    assert (state(api, dead), state(api, living)) == ("CRASHED", "RUNNING")
    kept = flow_record.read(record_path(tmp_path, dead))
    assert kept is not None
    assert kept.told == api
    monkeypatch.setattr(dead_flows, "get_client", lambda: pytest.fail("the server is asked"))
    assert tell(tmp_path) == {dead, unknown}


def test_what_another_server_was_told_is_asked_of_this_one(tmp_path: Path, api: str) -> None:
    dead = running(api)
    record(tmp_path, dead, told="http://another/api")
    assert tell(tmp_path) == {dead}
    assert state(api, dead) == "CRASHED"


def test_a_record_that_cannot_be_told_holds_up_none_before_or_after_it(
    tmp_path: Path, api: str
) -> None:
    older, newer = running(api), running(api)
    record(tmp_path, older, started_at=1.0)
    record(tmp_path, "no-such-id", started_at=2.0)
    record(tmp_path, newer, started_at=3.0, ended_at=9.0, state="FINISHED")
    assert tell(tmp_path) == {older, newer}
    assert (state(api, older), state(api, newer)) == ("CRASHED", "COMPLETED")


def test_a_server_that_is_away_is_asked_again_later(tmp_path: Path, api: str) -> None:
    dead = running(api)
    record(tmp_path, dead)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(dead_flows.httpx.TransportError),
    ):
        tell(tmp_path)
    assert tell(tmp_path) == {dead}
    assert state(api, dead) == "CRASHED"


def test_a_run_from_the_command_line_tells_what_was_killed_before_it(
    tmp_path: Path, api: str
) -> None:
    dead = running(api)
    record(tmp_path, dead)
    run_here._tell_dead(tmp_path)
    assert state(api, dead) == "CRASHED"
