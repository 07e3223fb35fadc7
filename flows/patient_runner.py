"""A runner that outlives its Prefect server being away, and serves on when it is back.

Prefect's own gives up after three polls without an answer: it takes on no more flow runs, and ends
when those it has have ended; and the poll for cancelled runs, which takes the place of a lost
websocket, ends for good (3.8.8).
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner

LOG = logging.getLogger("headrace.patient_runner")
STOPPED = "The process that serves the flows was stopped."


class PatientRunner(Runner):
    async def __aenter__(self) -> "PatientRunner":
        # Where no websocket can be opened the observer polls from here on: it must be ours by now.
        module: Any = sys.modules[Runner.__module__]
        its_own = module.FlowRunCancellingObserver
        module.FlowRunCancellingObserver = _patient(its_own)
        try:
            await super().__aenter__()
        finally:
            module.FlowRunCancellingObserver = its_own
        poller = self._scheduled_run_poller
        ask = poller._get_and_submit_flow_runs
        poller._get_and_submit_flow_runs = partial(_answered, ask)  # type: ignore[assignment, method-assign]
        return self

    async def _cancel_run(self, *run: Any, **how: Any) -> None:
        """Cancel it once the server answers: what this raises would end all other runs too."""
        while not await _answered(super()._cancel_run, *run, **how):
            await asyncio.sleep(self.query_seconds)

    async def cancel_all(self) -> None:
        """All at once: Prefect's own gives each its grace after the one before has ended."""
        runs = self._process_manager.flow_run_ids()
        for end in await asyncio.gather(*map(self._stop, runs), return_exceptions=True):
            if isinstance(end, BaseException):
                LOG.warning("a flow run is not cancelled: %r", end)

    async def _stop(self, run: UUID) -> None:
        flow_run = await self._client.read_flow_run(run)
        await self._cancellation_manager.cancel(flow_run, state_msg=STOPPED)


def _patient(observer: Any) -> Any:
    """Prefect's observer of cancelled runs, whose poll a server's absence does not end."""

    class PatientObserver(observer):  # type: ignore[misc]
        async def _check_for_cancelled_flow_runs(self) -> None:
            await _answered(super()._check_for_cancelled_flow_runs)

    return PatientObserver


async def _answered(ask: Callable[..., Awaitable[Any]], *words: Any, **named: Any) -> bool:
    """Whether the server answered; that it knows nothing of a run, for it was deleted, is an answer."""
    try:
        await ask(*words, **named)
    except ObjectNotFound as error:
        LOG.warning("Prefect's server does not know it any more: %s", error)
    except httpx.HTTPError as error:
        LOG.warning("Prefect's server does not answer, and is asked again: %r", error)
        return False
    return True
