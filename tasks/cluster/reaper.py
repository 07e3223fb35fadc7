"""Ends Jobs that nobody waits for any more: their flow run was cancelled, or has ended without them.

A flow that was killed leaves its Job running, for the next one to adopt. If none comes, it would
hold its GPUs to the end. Of a flow run that Prefect does not know, since it was deleted there or had a
temporary server, the record below `runs/flows/` tells. Other projects' Jobs are left to those who serve
their flows, also where Prefect knows all of them: how long they wait, and for whom, is not known here.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound

from components.errors import InfraError
from tasks import flow_record
from tasks.cluster import api
from tasks.cluster.api import Api, Object, connect, namespace_of
from tasks.cluster.cancel import cancel
from tasks.cluster.names import FLOW_RUN, PROJECT_LABEL, project_of
from tasks.cluster.seen import finished
from tasks.config import Settings

INTERVAL_S = 10.0
CANCELLED_GRACE_S = 60.0
"""The flow itself ends its Jobs when it is cancelled; it may have died before it could."""
LOG = logging.getLogger("headrace.reaper")


@dataclass(frozen=True)
class Ended:
    """How and when a flow run ended; `at` is Unix seconds."""

    is_cancelled: bool
    at: float


async def watch(settings: Settings, home: Path) -> None:
    """Look every few seconds, for ever; what ails a server is said and tried again."""
    over: dict[str, float] = {}
    while True:
        try:
            await reap(await asyncio.to_thread(connect), settings, home, over)
        except Exception as error:  # noqa: BLE001  it must go on looking, whatever ails the servers
            LOG.warning("Jobs without a flow are not looked for: %s", error)
        await asyncio.sleep(INTERVAL_S)


async def reap(server: Api, settings: Settings, home: Path, over: dict[str, float]) -> list[str]:
    """End what of the project is to be ended now, side by side; return the names of the Jobs that were.

    `over` keeps between two calls when (Unix seconds) a flow run was first seen to be gone.
    """
    path = namespace_of(api.JOBS, settings.namespace)
    own = f"{PROJECT_LABEL}={project_of(home, settings.claim)}"
    jobs = (await asyncio.to_thread(server.get, path, labelSelector=own))["items"]
    running = {
        job["metadata"]["name"]: flow_run
        for job in jobs
        if not finished(job) and (flow_run := _flow_run(job))
    }
    ends = await _ends(set(running.values()), home, over)
    names = overdue(running, ends, time.time(), settings.keep_s)
    ends_now = (
        _end_job(server, settings, name, _grace_s(jobs, name) + settings.lost_s) for name in names
    )
    return [name for name in await asyncio.gather(*ends_now) if name]


async def _end_job(server: Api, settings: Settings, name: str, wait_s: float) -> str:
    """Its name; empty, and a line in the log, if it could not be ended."""
    LOG.warning("the Job %s is ended: nobody waits for it", name)
    try:
        await asyncio.to_thread(cancel, server, settings.namespace, name, wait_s)
    except InfraError as error:
        LOG.warning("%s", error.message)
        return ""
    return name


def overdue(
    running: Mapping[str, str], ends: Mapping[str, Ended], now: float, keep_s: float
) -> list[str]:
    """Of the Jobs (name to flow run) those whose flow run ended too long ago. Pure."""
    found = []
    for name, flow_run in running.items():
        end = ends.get(flow_run)
        if end and now - end.at > (CANCELLED_GRACE_S if end.is_cancelled else keep_s):
            found.append(name)
    return found


async def _ends(flow_runs: set[str], home: Path, over: dict[str, float]) -> dict[str, Ended]:
    found = {}
    async with get_client() as client:
        for flow_run in flow_runs:
            try:
                end = _end(await client.read_flow_run(UUID(flow_run)))
            except ValueError:  # none of ours
                continue
            except ObjectNotFound:
                end = _end_on_record(home, flow_run, over)
            if end:
                found[flow_run] = end
    return found


def _end_on_record(home: Path, flow_run: str, over: dict[str, float]) -> Ended | None:
    """Whoever was killed could not say when: the patience begins when it is seen first."""
    path = flow_record.record_path(home, flow_run)
    record = flow_record.read(path)
    if record is None or not flow_record.is_over(path, record):
        return None
    return Ended(False, record.ended_at or over.setdefault(flow_run, time.time()))


def _end(run: FlowRun) -> Ended | None:
    if run.state is None or not (run.state.is_final() or run.state.type == StateType.CANCELLING):
        return None
    is_cancelled = run.state.type in (StateType.CANCELLED, StateType.CANCELLING)
    return Ended(is_cancelled, run.state.timestamp.timestamp())


def _flow_run(job: Object) -> str:
    return str((job["metadata"].get("annotations") or {}).get(FLOW_RUN, ""))


def _grace_s(jobs: list[Object], name: str) -> float:
    (job,) = (one for one in jobs if one["metadata"]["name"] == name)
    return float(job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
