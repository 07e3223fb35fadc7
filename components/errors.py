"""The error types of a stage. Each answers one question: who must act?

The exit codes follow sysexits.h where it has a fitting one, and are part of the contract between
`tasks.pod` (which exits with them) and whoever watches it.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager


class StageError(Exception):
    """An expected failure: a message that says what and where, and a hint that says what to do next."""

    kind = "bug"
    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def line(self) -> str:
        """Kind, what, where and what to do next, on one line."""
        said = f"{self.kind} error: {self.message}"
        return f"{said}; {self.hint}" if self.hint else said


class UserError(StageError):
    """The user must act: a wrong parameter, a model too large for the memory, a loss that is NaN."""

    kind = "user"
    exit_code = 64


class DataError(StageError):
    """The data must be mended: missing, truncated, of another digest, or failing its contract."""

    kind = "data"
    exit_code = 65


class NodeUnhealthy(StageError):
    """The machine is sick; the same work belongs on another one."""

    kind = "node"
    exit_code = 69


class InfraError(StageError):
    """The surroundings failed for a while (network, store, a killed process); trying again may help."""

    kind = "infra"
    exit_code = 75


BUG_EXIT_CODE = StageError.exit_code
KIND_OF_EXIT_CODE = {0: "ok"} | {
    cls.exit_code: cls.kind for cls in (StageError, UserError, DataError, NodeUnhealthy, InfraError)
}
ERROR_OF_KIND: dict[str, type[StageError]] = {
    cls.kind: cls for cls in (StageError, UserError, DataError, NodeUnhealthy, InfraError)
}

DISK_FAULTS: dict[int, tuple[type[StageError], str]] = {
    errno.ENOSPC: (InfraError, "free some there (`df -h` says how full it is) and run it again"),
    errno.EDQUOT: (InfraError, "free some of your quota and run it again"),
    errno.EIO: (InfraError, "the disk may be failing; if it says so again, use another"),
    errno.EROFS: (InfraError, "make it writable and run it again"),
    errno.EACCES: (UserError, "make it readable and writable for this user and run it again"),
    errno.EPERM: (UserError, "make it writable for this user and run it again"),
}
ERRNO = re.compile(r"(?:\[errno |\(os error )(\d+)", re.IGNORECASE)
"""How Python, Arrow and DVC, and how Rust's libraries (safetensors, tokenizers) end a message."""
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""What NumPy says of a full disk."""
LAST_PATH = re.compile(r"'(/[^']+)'\Z")


def disk_error(error: Exception | str, place: os.PathLike[str]) -> StageError | None:
    """The typed error for what a disk refused, told by an exception or its text; None for any other.

    `place` is what was written to, for a text that names no path. A denial without a path is not
    the disk's: sockets and signals have those too.
    """
    text = str(error)
    found = ERRNO.search(text)
    number = getattr(error, "errno", None) or (int(found[1]) if found else None)
    if SHORT_WRITE.fullmatch(text):
        number = errno.ENOSPC
    if number not in DISK_FAULTS:
        return None
    named = LAST_PATH.search(text)
    if named is None and number in (errno.EACCES, errno.EPERM):
        return None
    return disk_fault(number, named[1] if named else place)


def disk_fault(number: int, place: str | os.PathLike[str]) -> StageError:
    """The typed error for a number of DISK_FAULTS at `place`."""
    kind, hint = DISK_FAULTS[number]
    return kind(f"{os.strerror(number)}: {os.fspath(place)}", hint)


@contextmanager
def disk_faults_typed(place: os.PathLike[str]) -> Iterator[None]:
    """Raise the typed error for what a disk refuses in the body; every other error as it is."""
    try:
        yield
    except OSError as error:
        refused = disk_error(error, place)
        if refused is None:
            raise
        raise refused from error
