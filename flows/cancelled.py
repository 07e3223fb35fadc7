"""Ends flow runs that are cancelled in Prefect and whose runner is not there to end them.

The process that served them died and left them to go on, or they were started in a terminal.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from flows.dead_flows import end_run
from tasks import flow_record
from tasks.flow_record import FlowRecord
from tasks.process import is_running, parent_of

INTERVAL_S = 5.0
AFTER_SIGTERM_S = 0.5
"""Between two looks while a flow has been asked to end."""
GRACE_S = 30.0
"""Between SIGTERM and SIGKILL: as long as Prefect's own runner waits."""
LOG = logging.getLogger("headrace.cancelled")


async def watch(home: Path) -> None:
    """Look every few seconds, for ever. A server that is away is asked again the next time."""
    asked: dict[str, float] = {}
    over: set[str] = set()
    while True:
        try:
            await end(home, asked, over)
        except Exception as error:  # noqa: BLE001  it must go on looking, whatever ails the server
            LOG.warning("cancelled flow runs are not ended: %s", error)
        await asyncio.sleep(AFTER_SIGTERM_S if asked else INTERVAL_S)


async def end(home: Path, asked: dict[str, float], over: set[str]) -> None:
    """SIGTERM to the flows on this machine that Prefect calls cancelling; SIGKILL after `GRACE_S`.

    This process's own children are left alone: they are its runner's. `asked` keeps, for a flow run
    until its process is gone, the `time.monotonic()` of the SIGTERM. The records in `over` are not
    read: of flows whose process is gone, or never was on this machine; what is found is added.
    """
    there = _there(home, over)
    for run in asked.keys() & there.keys():
        if time.monotonic() - asked[run] > GRACE_S:
            _send(signal.SIGKILL, run, there[run])
    if not (asked or there):
        return
    async with get_client() as client:
        for run in asked.keys() - there.keys():
            await _call_cancelled(client, UUID(run))
            del asked[run]
        for run in await _cancelling(client, there.keys() - asked.keys()):
            asked[run] = time.monotonic()
            _send(signal.SIGTERM, run, there[run])


def _there(home: Path, over: set[str]) -> dict[str, FlowRecord]:
    """The records of flows that run on this machine, and were not started by this process."""
    there = {}
    for path in flow_record.record_paths(home):
        record = None if path.stem in over else flow_record.read(path)
        if record is None:
            continue
        if not _is_here(record):
            over.add(path.stem)
        elif parent_of(record.pid) != os.getpid():
            there[path.stem] = record
    return there


def _is_here(record: FlowRecord) -> bool:
    return record.node == os.uname().nodename and is_running(record.pid, record.ticks)


async def _cancelling(client: PrefectClient, runs: Iterable[str]) -> list[str]:
    """Those of `runs` that the server calls cancelling."""
    wanted = FlowRunFilter(
        id=FlowRunFilterId(any_=[UUID(run) for run in runs]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
    )
    return [str(run.id) for run in await client.read_flow_runs(flow_run_filter=wanted)]


async def _call_cancelled(client: PrefectClient, run: UUID) -> None:
    """Say so of a flow that called its end by SIGTERM a crash, or could say nothing."""
    try:
        state = (await client.read_flow_run(run)).state
    except ObjectNotFound:  # deleted meanwhile
        return
    if state is not None and state.type in (StateType.CANCELLING, StateType.CRASHED):
        message = "it was cancelled in Prefect; start it again: it goes on from what was finished"
        await end_run(client, run, Cancelled(message=message))


def _send(sig: signal.Signals, run: str, record: FlowRecord) -> None:
    if not _is_here(record):
        return
    LOG.info("flow run %s is cancelled: %s to process %d", run, sig.name, record.pid)
    try:
        os.kill(record.pid, sig)
    except OSError as error:  # another user's; or gone by now
        LOG.warning("process %d of flow run %s: %s", record.pid, run, error.strerror)
