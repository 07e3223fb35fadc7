"""The wish to stop: set by a signal handler, seen by a training loop between two steps."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_requested = threading.Event()
_watched = threading.Event()


def request() -> None:
    """Ask whoever watches to checkpoint and stop."""
    _requested.set()


def is_requested() -> bool:
    return _requested.is_set()


def is_watched() -> bool:
    """Whether a loop looks at the wish at present."""
    return _watched.is_set()


@contextmanager
def watched() -> Iterator[None]:
    """The loop's promise to look at `is_requested` between any two steps."""
    _watched.set()
    try:
        yield
    finally:
        _watched.clear()
