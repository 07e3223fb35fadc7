"""The local launcher: a stage as processes of this machine.

A launcher is anything with `run(run_dir, num_ranks) -> Outcome`; a cluster is a second one, and no
stage can tell the difference.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Protocol

from components.errors import BUG_EXIT_CODE, KIND_OF_EXIT_CODE, InfraError, UserError
from tasks import outcome
from tasks.outcome import Outcome
from tasks.process import end_group, group_memory_gib, oom_kills
from tasks.run_dir import RunDir

MEMORY_SAMPLE_S = 1.0


class Launcher(Protocol):
    def run(self, run: RunDir, num_ranks: int) -> Outcome:
        """Run the request in `run` to its end and say how it ended. Never raises for a stage's failure."""


class LocalLauncher:
    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s

    def run(self, run: RunDir, num_ranks: int) -> Outcome:
        started_at, started = time.time(), time.monotonic()
        oom_before = oom_kills()
        pod = subprocess.Popen(
            pod_command(run, num_ranks),
            cwd=run.root,
            env=os.environ | {"HEADRACE_LAUNCH_PID": str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own: one signal reaches every rank and worker
        )
        peak = _Peak(pod.pid)
        forward = _Forward(pod.pid, self._grace_s)
        with run.log.open("ab") as log:
            assert pod.stdout is not None
            for line in pod.stdout:
                log.write(line)
                log.flush()
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
        code = pod.wait()
        end_group(pod.pid, signal.SIGKILL)  # workers that outlived a killed pod
        forward.stop()
        said = outcome.read(run.path)
        kind, message, hint = _verdict(run, said, code, oom_kills() > oom_before, forward.received)
        return Outcome(
            stage=run.stage,
            key=run.key,
            kind=kind,
            exit_code=next(code for code, name in KIND_OF_EXIT_CODE.items() if name == kind),
            message=message,
            hint=hint,
            node=os.uname().nodename,
            attempt=1,
            started_at=round(started_at, 3),
            elapsed_s=round(time.monotonic() - started, 3),
            peak_memory_gib=round(peak.stop(), 3),
        )


def pod_command(run: RunDir, num_ranks: int) -> list[str]:
    module = ["-m", "tasks.pod", run.stage, str(run.path.relative_to(run.root))]
    if num_ranks == 1:
        return [sys.executable, *module]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={num_ranks}", *module,
    ]  # fmt: skip


def _verdict(
    run: RunDir, said: Outcome | None, code: int, oom: bool, signalled: bool
) -> tuple[str, str, str]:
    """Kind, message and hint from what the pod wrote and how it exited."""
    if said is not None and (said.ok == (code == 0)):
        return said.kind, said.message, said.hint
    where = f"see {run.log.relative_to(run.root)}"
    if code in (0, BUG_EXIT_CODE, 1):
        return "bug", f"{run.stage} ended with exit code {code} and without a word", where
    if code < 0:
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL and oom:
            hint = "make the model, the batch or HEADRACE_NUM_WORKERS smaller"
            return UserError.kind, f"{run.stage} ran out of memory; the kernel ended it", hint
        if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) or signalled:
            return (
                InfraError.kind,
                f"{run.stage} was ended by {name}",
                "run it again: it goes on from its last checkpoint",
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


class _Peak:
    """Samples the group's memory; a stage's workers come and go, so no single process tells it."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._peak_gib = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(MEMORY_SAMPLE_S):
            self._peak_gib = max(self._peak_gib, group_memory_gib(self._group))

    def stop(self) -> float:
        self._stopped.set()
        self._thread.join()
        return self._peak_gib


def tail(path: Path, num_lines: int = 20) -> str:
    """The last lines of a log, for a person."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-num_lines:])
    except FileNotFoundError:
        return ""
