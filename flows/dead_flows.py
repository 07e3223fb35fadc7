"""Tells Prefect how flow runs ended whose process is gone, and which it would call running.

They were killed, or ended while the server was away.

Prefect itself gives up on a flow run after minutes without a heartbeat, and only on those that it
started. The records below `runs/flows/` name each flow's process, and it holds a lock beside its
record, so the kernel can be asked: a process that is stopped, or waits for a slow disk, is there,
however long it says nothing. What a server was told stays in the record, and is asked no more.
"""

import asyncio
import logging
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.end import AWAY
from tasks import flow_record
from tasks.config import without_password
from tasks.flow_record import FlowRecord, is_gone

INTERVAL_S = 5.0
HEAD_START_S = 1.0
"""For whoever started the process, and may be about to say itself that it is gone."""
UNFINISHED = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
LOG = logging.getLogger("headrace.dead_flows")


async def watch(home: Path) -> None:
    """Look every few seconds, for ever. A server that is away is asked again the next time."""
    done: set[str] = set()
    while True:
        try:
            await tell(home, done)
        except Exception as error:  # noqa: BLE001  it must go on looking, whatever ails the server
            LOG.warning("dead flow runs are not told: %s", error)
        await asyncio.sleep(INTERVAL_S)


async def tell(home: Path, done: set[str]) -> None:
    """Give flow runs that Prefect calls running, and whose process is gone, the state they ended in.

    Those in `done` are left alone; what is found is added to it. Raises httpx.TransportError if the
    server is away; what else ails one run holds up no other.
    """
    server = without_password(PREFECT_API_URL.value() or "")
    gone = []
    for path in flow_record.record_paths(home):
        record = None if path.stem in done else flow_record.read(path)
        if record is not None and record.told == server:
            done.add(path.stem)
        elif record is not None and is_gone(path, record):
            gone.append((path, record))
    if not gone:
        return
    await asyncio.sleep(HEAD_START_S)
    async with get_client() as client:
        for path, record in sorted(gone, key=lambda one: one[1].started_at, reverse=True):
            try:
                await _tell_one(client, record)
                flow_record.tell(path, record, server)
                done.add(path.stem)
            except httpx.TransportError:
                raise
            except Exception as error:  # noqa: BLE001  a server says what it likes of one run
                LOG.warning("the end of flow run %s is not told: %s", path.stem, error)


async def _tell_one(client: PrefectClient, record: FlowRecord) -> None:
    try:
        run = await client.read_flow_run(UUID(record.id))
    except ObjectNotFound:  # of another server, or deleted
        return
    if run.state is None or run.state.type not in UNFINISHED:
        return
    state = _end(record, run.state.type)
    await end_run(client, run.id, state)
    LOG.info("flow run %s: %s", run.name, state.message)


async def end_run(client: PrefectClient, run: UUID, state: State) -> None:
    """Give a flow run, and those of its tasks that have not ended, this final state."""
    unfinished = await client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=list(UNFINISHED)))
        ),
    )
    for task_run in unfinished:
        await client.set_task_run_state(task_run.id, state, force=True)
    await client.set_flow_run_state(run, state, force=True)


def _end(record: FlowRecord, known: StateType) -> State:
    """The state for what Prefect knows as `known`."""
    message = (
        f"process {record.pid} on {record.node} is gone; "
        "start the flow again: it goes on from what was finished"
    )
    kind = Crashed
    if record.ended_at is not None:
        message = AWAY
        kind = Completed if record.state == "FINISHED" else Failed
    if known == StateType.CANCELLING and kind is not Completed:
        kind = Cancelled
    return kind(message=message)
