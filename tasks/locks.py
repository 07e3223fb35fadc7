"""One at a time, among all processes of a machine."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POLL_S = 0.2
SAY_AFTER_S = 1.0
"""Who only looks whether a lock is held, holds it for a moment: that is no reason to say anything."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file `path` while the body runs, after whoever holds it; the kernel frees it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held(path: Path, holder: str, on_wait: Callable[[str], object]) -> Iterator[int]:
    """`locked`, for what may take hours: yields the descriptor, and leaves in the file who holds it.

    While another holds it, `on_wait` gets once who that is. A signal ends the waiting as its handler
    says: there is no call that it could come too early for.
    """
    with path.open("ab+", buffering=0) as file:
        began, is_said = time.monotonic(), False
        while not _taken(file.fileno()):
            if not is_said and time.monotonic() - began >= SAY_AFTER_S:
                is_said = True
                on_wait(path.read_text(encoding="utf-8", errors="replace") or "another process")
            time.sleep(POLL_S)
        with suppress(OSError):  # a full disk: then nobody is told who it is
            file.truncate(0)
            file.write(holder.encode())
        yield file.fileno()


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Hold the file `path` while the body runs if nobody else does; yields whether."""
    with path.open("ab") as file:
        yield _taken(file.fileno())


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock `path`. Raises FileNotFoundError where there is none."""
    with path.open("rb") as file:
        return not _taken(file.fileno(), fcntl.LOCK_SH)  # who else looks is not in the way


def _taken(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def this_process(root: Path) -> str:
    """How a holder is named that works in `root`."""
    return f"process {os.getpid()} ({os.uname().nodename}, {root})"
