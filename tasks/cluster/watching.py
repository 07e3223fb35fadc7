"""The newest state of a few objects, kept up to date by a thread: list, then watch, and again.

A dropped connection, a server that restarts and a version that is too old (410) all end the same
way: the list is asked for again. Nothing is missed, for what counts is the state, not the events.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from tasks.cluster.api import PAUSES_S, Api, Away, Object, Refused

SHORTEST_WATCH_S = 1.0


def whole(one: Object) -> Object:
    return one


class Watched:
    """The objects of one list, by name, while the body runs.

    `changed` is set whenever something changes, here or in another list that shares it. After
    `relist_s` the list is asked for again though no watch has failed, with the end of the watch.
    `keep` gives what is to be kept of an object, which bounds the memory.
    """

    def __init__(
        self, api: Api, path: str, changed: threading.Event, relist_s: float = math.inf,
        keep: Callable[[Object], Object] = whole, /, **selectors: str,
    ) -> None:  # fmt: skip
        self._api, self._path, self._selectors = api, path, selectors
        self._relist_s, self._keep = relist_s, keep
        self._changed = changed
        self._objects: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.listed = threading.Event()
        """Set once it is known what there is."""
        self.away_since: float | None = None
        """Monotonic seconds; None while the server answers."""
        self.refusal: Refused | None = None
        """The server's no, such as a missing right; the thread has ended then."""

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stopped.set()  # the thread ends with its watch; nobody waits for it

    @property
    def is_kept(self) -> bool:
        """False once nobody keeps the objects up to date: after a refusal, or a fault of our own."""
        return self._thread.is_alive()

    def objects(self) -> Mapping[str, Object]:
        with self._lock:
            return dict(self._objects)

    def _follow(self) -> None:
        tries = 0
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                version = self._list()
                while not self._stopped.is_set() and time.monotonic() - began < self._relist_s:
                    version = self._watch(version)
            except Refused as no:
                if no.status in (401, 403) and self.listed.is_set():
                    # A server that has just started does not know all rights at once.
                    self.away_since = self.away_since or time.monotonic()
                elif no.status != 410:
                    self.refusal = no
                    self.listed.set()
                    self._changed.set()
                    return
            except (Away, KeyError, TypeError):  # these two: somebody in between, no Kubernetes
                self.away_since = self.away_since or time.monotonic()
                self._changed.set()
            tries = tries + 1 if time.monotonic() - began < PAUSES_S[-1] else 0
            self._stopped.wait(PAUSES_S[min(tries, len(PAUSES_S) - 1)])

    def _list(self) -> str:
        listed: dict[str, Object] = {}
        version = ""
        for page in self._api.pages(self._path, **self._selectors):
            for one in page["items"]:
                name, kept = one["metadata"]["name"], self._keep(one)
                known = self._objects.get(name)
                listed[name] = known if known == kept else kept  # never the same one twice
            version = str(page["metadata"]["resourceVersion"])
        with self._lock:
            self._objects = listed
        self.away_since = None
        self.listed.set()
        self._changed.set()
        return version

    def _watch(self, version: str) -> str:
        """Take events in until the server ends the watch; return the newest version seen.

        Raises Away for one that ends at once: asked again and again, it would be a flood.
        """
        began, newest = time.monotonic(), version
        for event in self._api.watch(self._path, resourceVersion=version, **self._selectors):
            one = event["object"]
            newest = str(one["metadata"]["resourceVersion"])
            self.away_since = None
            if self._stopped.is_set():
                break
            if event["type"] == "BOOKMARK":
                continue
            with self._lock:
                if event["type"] == "DELETED":
                    self._objects.pop(one["metadata"]["name"], None)
                else:
                    self._objects[one["metadata"]["name"]] = self._keep(one)
            self._changed.set()
        if newest == version and time.monotonic() - began < SHORTEST_WATCH_S:
            raise Away("the watch ended at once")
        return newest
