"""A runner that outlives its Prefect server being away, and serves on when it is back.

Prefect's own gives up after three polls without an answer: it takes on no more flow runs, and ends
when those it has have ended; and the poll for cancelled runs, which takes the place of a lost
websocket, ends for good (3.8.8).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
from prefect.runner import Runner

LOG = logging.getLogger("headrace.patient_runner")


class PatientRunner(Runner):
    async def __aenter__(self) -> "PatientRunner":
        await super().__aenter__()
        poller, observer = self._scheduled_run_poller, self._cancelling_observer
        assert observer is not None
        poller._get_and_submit_flow_runs = _tried(poller._get_and_submit_flow_runs)  # type: ignore[method-assign]
        observer._check_for_cancelled_flow_runs = _tried(observer._check_for_cancelled_flow_runs)  # type: ignore[method-assign]
        return self

    async def _cancel_run(self, *run: Any, **how: Any) -> None:
        """Cancel it once the server answers: what this raises would end all other runs too."""
        while not await _answered(super()._cancel_run, *run, **how):
            await asyncio.sleep(self.query_seconds)


def _tried(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """`ask`, which is asked again and again, as a call that a server's absence does not fail."""

    async def tried(*words: Any, **named: Any) -> None:
        await _answered(ask, *words, **named)

    return tried


async def _answered(ask: Callable[..., Awaitable[Any]], *words: Any, **named: Any) -> bool:
    try:
        await ask(*words, **named)
    except httpx.HTTPError as error:
        LOG.warning("Prefect's server does not answer, and is asked again: %r", error)
        return False
    return True
