"""Child processes that measure: what hangs or crashes in a driver must not take the pre-check along.

A child prints one JSON document on one line; libraries may print other lines before and after.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

POLL_S = 0.02
GRACE_S = 10.0
"""For the others, once one child has failed: they may only be waiting for it."""
REAP_S = 5.0
"""A process that is stuck in a driver does not even die; nobody waits longer for that."""
PR_SET_PDEATHSIG = 1
PARENT = "HEADRACE_PREFLIGHT_PID"
"""Where a child finds who started it."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    line: str
    """The last line of standard output that begins as JSON; empty if there was none."""
    complaint: str
    """The last line of standard error."""
    code: int | None
    """None: it was still running at the deadline and was killed."""

    @property
    def failed(self) -> bool:
        return self.code != 0 or not self.line


def run_children(
    module: str,
    arguments: Sequence[Sequence[str]],
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> list[Ended]:
    """`python -m module` once for each of `arguments`, side by side, for `timeout_s` at most."""
    started = [_start(module, each, environment or {}) for each in arguments]
    try:
        _await([child for child, *_ in started], timeout_s)
        return [_ended(child, out, err) for child, out, err in started]
    finally:
        for child, out, err in started:
            if child.poll() is None:
                child.kill()
            out.close()
            err.close()


Started = tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]


def _start(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Started:
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  # closed by the caller
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env={**os.environ, **environment, PARENT: str(os.getpid())},
    )
    return child, out, err


def _await(children: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> None:
    deadline, hurried = time.monotonic() + timeout_s, False
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        if not hurried and any(child.poll() for child in children):  # neither None nor 0
            deadline, hurried = min(deadline, time.monotonic() + GRACE_S), True
        time.sleep(POLL_S)


def _ended(child: subprocess.Popen[bytes], out: IO[bytes], err: IO[bytes]) -> Ended:
    code = child.poll()
    if code is None:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(REAP_S)
    return Ended(_last_line(out, "{"), _last_line(err), code)


def _last_line(file: IO[bytes], start: str = "") -> str:
    file.seek(0)
    lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line and line.startswith(start)), "")


def end_with_parent() -> None:
    """Asked by a child first of all: the kernel kills it when the pre-check is gone, and if that
    was gone before the child could ask, it ends itself.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if str(os.getppid()) != os.environ.get(PARENT):
        os._exit(1)
