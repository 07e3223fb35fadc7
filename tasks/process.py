"""Processes that die with their parent and take their children with them."""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int, sig: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel (Linux) for `sig` when the parent dies; go at once if it is already gone.

    A killed parent cannot clean up, so each link of the chain asks for its own end: no orphan
    keeps writing after its supervisor is gone.
    """
    if not Path("/proc/self").exists():
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sig))
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), sig)


def group_memory_gib(group: int) -> float:
    """Resident memory of a process group, shared pages counted once (PSS)."""
    total_kib = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) != group:
                continue
            for line in (folder / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
                    break
        except (OSError, ValueError):  # it ended while we looked
            continue
    return total_kib / 2**20


def oom_kills() -> int:
    """How many processes this machine's kernel has ended for memory since boot."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def end_group(group: int, sig: signal.Signals) -> None:
    """Send `sig` to a process group that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, sig)
