"""All objects of one kind, and again whenever one changes: list, then watch, for as long as it takes.

General: for any list call of the client, with any selectors.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http import HTTPStatus
from typing import Any

LOG = logging.getLogger("headrace.watching")

Object = dict[str, Any]

CONNECT_TIMEOUT_S = 10
LATE_S = 15
"""How long after a watch's own end the connection counts as lost."""
BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)


def follow(
    list_call: Callable[..., Any], *, resync_s: int, stop: threading.Event, **selectors: Any
) -> Iterator[list[Object]]:
    """Yield all objects, as the API's JSON: at once, after each change, and at least each `resync_s`.

    A watch goes on from where the list or the watch before it ended. Everything is listed anew each
    `resync_s`, when the server has forgotten that place (410), and after a lost connection. Ends
    when `stop` is set, at the latest `resync_s` later. Raises ApiException where waiting cannot
    help: the call is forbidden, or unknown.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    failures = 0
    while not stop.is_set():
        try:
            for objects in _once(list_call, resync_s, stop, selectors):
                failures = 0
                yield objects
        except ApiException as error:
            if error.status in (401, 403, 404, 405):
                raise
            if error.status == HTTPStatus.GONE:
                LOG.info("the watch has expired; listing again")
                continue
            LOG.warning("the API server answers %s %s", error.status, error.reason)
        except (HTTPError, OSError, ValueError) as error:
            LOG.warning("the connection to the API server was lost: %s", error)
        else:
            continue
        stop.wait(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
        failures += 1


def _once(
    list_call: Callable[..., Any], resync_s: int, stop: threading.Event, selectors: dict[str, Any]
) -> Iterator[list[Object]]:
    """One list, and one watch from there. Without a version the list is the newest there is."""
    from kubernetes.watch.watch import iter_resp_lines

    raw = {
        **selectors,
        "_preload_content": False,
        "_request_timeout": (CONNECT_TIMEOUT_S, resync_s + LATE_S),
    }
    with closing(list_call(**raw)) as answer:
        listed = json.loads(answer.data)
    objects = {_uid(item): item for item in listed["items"]}
    yield list(objects.values())
    version = listed["metadata"]["resourceVersion"]
    watch = {"watch": True, "resource_version": version, "timeout_seconds": resync_s}
    with closing(list_call(**raw, **watch)) as answer:
        for line in iter_resp_lines(answer):
            if stop.is_set():
                return
            if line:
                _apply(json.loads(line), objects)
                yield list(objects.values())


def _apply(event: Object, objects: dict[str, Object]) -> None:
    from kubernetes.client import ApiException

    changed = event["object"]
    match event["type"]:
        case "ADDED" | "MODIFIED":
            objects[_uid(changed)] = changed
        case "DELETED":
            objects.pop(_uid(changed), None)
        case "ERROR":
            raise ApiException(status=changed.get("code"), reason=changed.get("message"))


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


class Mirror(threading.Thread):
    """Keeps the newest list of `follow`, and sets `changed` at each."""

    def __init__(
        self,
        list_call: Callable[..., Any],
        *,
        resync_s: int,
        stop: threading.Event,
        changed: threading.Event,
        **selectors: Any,
    ) -> None:
        super().__init__(daemon=True)
        self._lists = follow(list_call, resync_s=resync_s, stop=stop, **selectors)
        self._changed = changed
        self._objects: list[Object] | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            for objects in self._lists:
                self._objects = objects
                self._changed.set()
        except Exception as error:  # noqa: BLE001  raised again by whoever reads the list
            self._error = error
            self._changed.set()

    @property
    def objects(self) -> list[Object] | None:
        """None before the first list. Raises what ended the thread."""
        if self._error is not None:
            raise self._error
        return self._objects
