"""The local launcher: a stage as processes of this machine.

The other launcher is the cluster's, in whose pods this one runs too; no stage can tell the difference.
"""

import errno
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

from components.contract import Json
from components.errors import (
    BUG_EXIT_CODE,
    KIND_OF_EXIT_CODE,
    InfraError,
    UserError,
    disk_fault,
)
from tasks import outcome
from tasks.config import StageResources
from tasks.outcome import Outcome
from tasks.process import die_with_parent, end_group, oom_kills, tree_memory_gib
from tasks.run_dir import RunDir

MEMORY_SAMPLE_S = 1.0
RELAY_INTERVAL_S = 0.1
NEEDED_BYTES = 65536
"""Less than this on the disk, and a process may have had no room to say how it ended."""
RANK_EXIT = re.compile(rb"^  exitcode  : (-?\d+) \(pid: \d+\)", re.MULTILINE)
"""In torchrun's report of failed ranks, whose last one is the one that failed first."""
REPORT_BYTES = 65536
AGAIN = "run it again: it goes on from its last checkpoint"
SMALLER = "make the model, the batch or HEADRACE_NUM_WORKERS smaller"


class Launcher(Protocol):
    def goes_on(self, run: RunDir, before: Mapping[str, Json]) -> bool:
        """Whether what the request `before` asked for still runs, or has ended unseen."""

    def run(self, run: RunDir, resources: StageResources) -> Outcome:
        """Run the request in `run` to its end and say how it ended. Never raises for a stage's failure."""


class LocalLauncher:
    def __init__(self, grace_s: float, lock: int) -> None:
        """`lock` is a descriptor that the stage's process keeps open as long as it lives."""
        self._grace_s = grace_s
        self._lock = lock

    def goes_on(self, run: RunDir, before: Mapping[str, Json]) -> bool:
        """Never: a stage's process ends with its launcher."""
        return False

    def run(self, run: RunDir, resources: StageResources) -> Outcome:
        return supervise(run, pod_command(run, resources.num_ranks), self._grace_s, (self._lock,))


def supervise(
    run: RunDir,
    command: Sequence[str],
    grace_s: float,
    keep_open: tuple[int, ...] = (),
    *,
    log_name: str = "log.txt",
    leads: bool = True,
) -> Outcome:
    """Run a stage's process to its end, passing signals on, and say how it ended.

    What it prints goes to a file of the run and to our own output. One that does not lead a gang
    leaves it to the leader to say that all is well.
    """
    started_at, started = time.time(), time.monotonic()
    oom_before = oom_kills()
    path = run.path / log_name
    with path.open("ab") as log:
        # Its own file, not a pipe to us: what it prints is kept, and printing is no danger to
        # it, when we are gone.
        offset = log.tell()
        pod = subprocess.Popen(
            command,
            cwd=run.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            start_new_session=True,  # a group of its own: one signal reaches every worker
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509  no thread of ours holds a lock
        )
    forward = _Forward(pod.pid, grace_s)
    peak_gib = _relay_until_end(pod, path, offset)
    end_group(pod.pid, signal.SIGKILL)  # workers that outlived a killed pod
    forward.stop()
    said = outcome.read(run.path)
    oom = oom_kills() > oom_before
    code = pod.returncode
    if code == 1:
        with path.open("rb") as log:
            log.seek(max(offset, path.stat().st_size - REPORT_BYTES))
            code = code_of_rank(log.read()) or code
    if not leads and code == 0:
        kind, message, hint = "ok", "", ""
    else:
        kind, message, hint = _verdict(run, said, code, oom, forward.received)
    return Outcome(
        stage=run.stage,
        key=run.key,
        kind=kind,
        exit_code=outcome.exit_code_of(kind),
        message=message,
        hint=hint,
        node=os.uname().nodename,
        attempt=1,
        started_at=round(started_at, 3),
        elapsed_s=round(time.monotonic() - started, 3),
        peak_memory_gib=round(peak_gib, 3),
    )


def code_of_rank(log: bytes) -> int | None:
    """What the rank exited with for which torchrun has ended; None if the log has no report of one.

    torchrun itself ends with 1, whatever that was. Other ranks, here or on other nodes, may not have
    noticed yet, and leave a word later or never.
    """
    found = RANK_EXIT.findall(log)
    return int(found[-1]) if found else None


def _relay_until_end(pod: "subprocess.Popen[bytes]", log: Path, offset: int) -> float:
    """Print what the log gets after `offset` until `pod` has ended; return its peak memory, GiB.

    Memory is sampled over the pod and all its descendants: a stage's workers come and go, so no
    single process tells it.
    """
    peak_gib, sampled_at = 0.0, -math.inf
    with log.open("rb") as file:
        file.seek(offset)
        ended = False
        while not ended:
            ended = pod.poll() is not None
            _print_bytes(file.read())
            if time.monotonic() - sampled_at >= MEMORY_SAMPLE_S:
                sampled_at = time.monotonic()
                peak_gib = max(peak_gib, tree_memory_gib(pod.pid))
            if not ended:
                time.sleep(RELAY_INTERVAL_S)
    return peak_gib


def _print_bytes(text: bytes) -> None:
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    except OSError:  # nobody reads any more; the log has it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def pod_command(run: RunDir, num_ranks: int) -> list[str]:
    module = ["-m", "tasks.pod", run.stage, str(run.path)]
    if num_ranks == 1:
        return [sys.executable, *module]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={num_ranks}", *module,
    ]  # fmt: skip


def _verdict(
    run: RunDir, said: Outcome | None, code: int, oom: bool, signalled: bool
) -> tuple[str, str, str]:
    """Kind, message and hint from what the pod wrote and how it exited.

    To those that a worker or a rank leaves, whom the kernel ended for memory, the infrastructure
    failed. To try again would be to meet the same.
    """
    if said is not None and (said.ok == (code == 0)):
        if said.kind == InfraError.kind and oom and not signalled:
            message = f"{run.stage} ran out of memory; the kernel ended a process: {said.message}"
            return UserError.kind, message, SMALLER
        return said.kind, said.message, said.hint
    where = f"see {run.log}"
    if said is None and code > 0 and shutil.disk_usage(run.path).free < NEEDED_BYTES:
        full = disk_fault(errno.ENOSPC, run.path)
        return full.kind, full.message, full.hint
    if signalled and code > 0:
        return InfraError.kind, f"{run.stage} was ended by a signal", AGAIN
    if code in (0, BUG_EXIT_CODE, 1):
        return "bug", f"{run.stage} ended with exit code {code} and without a word", where
    if code < 0:
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL and oom:
            return UserError.kind, f"{run.stage} ran out of memory; the kernel ended it", SMALLER
        if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) or signalled:
            return (
                InfraError.kind,
                f"{run.stage} was ended by {name}",
                AGAIN,
            )
        return "bug", f"{run.stage} crashed with {name}", where
    return KIND_OF_EXIT_CODE.get(code, "bug"), f"{run.stage} ended with exit code {code}", where


class _Forward:
    """Passes SIGTERM and SIGINT on to the pod's group, and SIGKILL after the grace period."""

    def __init__(self, group: int, grace_s: float) -> None:
        self.received = False
        self._group = group
        self._timer = threading.Timer(grace_s, end_group, (group, signal.SIGKILL))
        self._timer.daemon = True
        self._before = {
            sig: signal.signal(sig, self._handle) for sig in (signal.SIGTERM, signal.SIGINT)
        }

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received = True
            self._timer.start()
        end_group(self._group, signal.SIGTERM)

    def stop(self) -> None:
        self._timer.cancel()
        for sig, handler in self._before.items():
            signal.signal(sig, handler)
