"""The runner where Prefect's server cannot be reached from the start, and when it is stopped."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    temporary_settings,
)

from flows.patient_runner import PatientRunner

NOBODY = "http://127.0.0.1:9/api"


def test_the_poll_for_cancelled_runs_goes_on_where_no_websocket_was_ever_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def read_flow_runs(**_: object) -> None:  # as the client does after half a minute
        nonlocal asked
        asked += 1
        raise httpx.ConnectError("All connection attempts failed")

    async def poll() -> None:
        runner = PatientRunner(name="r", query_seconds=0.01, pause_on_shutdown=False)
        async with runner:
            observer: Any = runner._cancelling_observer
            monkeypatch.setattr(observer._client, "read_flow_runs", read_flow_runs)
            while asked < 10 and not observer._polling_task.done():
                await asyncio.sleep(0.01)

    with temporary_settings({PREFECT_API_URL: NOBODY, PREFECT_HOME: tmp_path}):
        asyncio.run(asyncio.wait_for(poll(), 60))
    assert asked >= 10


def test_all_runs_are_asked_to_end_before_any_of_them_has() -> None:
    runs, asked = [uuid4(), uuid4()], set[UUID]()

    class Manager:
        async def cancel(self, run: UUID, state_msg: str) -> None:
            asked.add(run)
            while len(asked) < len(runs):
                await asyncio.sleep(0.01)

    async def read_flow_run(run: UUID) -> UUID:
        return run

    async def stop() -> None:
        runner: Any = PatientRunner(name="r")
        runner._client = SimpleNamespace(read_flow_run=read_flow_run)
        runner._process_manager = SimpleNamespace(flow_run_ids=lambda: runs)
        runner._cancellation_manager = Manager()
        await runner.cancel_all()

    asyncio.run(asyncio.wait_for(stop(), 10))
    assert asked == set(runs)
