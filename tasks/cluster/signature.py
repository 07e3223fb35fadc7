"""Who waits for a Job: the note by which the reaper knows whose end would end it."""

import os
import time
from collections.abc import Callable

from tasks import config
from tasks.cluster.api import JOBS, Api, Away, Object, Refused, namespace_of
from tasks.cluster.names import FLOW_RUN
from tasks.cluster.seen import finished

INTERVAL_S = 5.0
"""Between two tries."""


class Signature:
    """Of this process's flow run, on a Job that another may have made."""

    def __init__(self, server: Api, namespace: str, say: Callable[[str], object]) -> None:
        self._server, self._namespace, self._say = server, namespace, say
        self._is_there, self._next_at, self._said = False, 0.0, ""

    def put_on(self, job: Object) -> None:
        """Sign the Job, unless that is done: once, so that of two who follow it the later one counts.

        Asked again and again: Kueue guards every change of a Job, and may be away.
        """
        if self._is_there or time.monotonic() < self._next_at or finished(job):
            return
        mine = os.environ.get(config.FLOW_RUN, "")
        if (job["metadata"].get("annotations") or {}).get(FLOW_RUN, "") != mine:
            path = namespace_of(JOBS, self._namespace, job["metadata"]["name"])
            try:
                self._server.patch(path, {"metadata": {"annotations": {FLOW_RUN: mine}}})
            except (Away, Refused) as error:
                self._next_at = time.monotonic() + INTERVAL_S
                if str(error) != self._said:
                    self._said = str(error)
                    self._say(f"the Job does not yet say who waits for it, asking again: {error}")
                return
        self._is_there = True
