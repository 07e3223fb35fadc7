"""Processes that die with their parent and take their children with them."""

import contextlib
import ctypes
import os
import select
import signal
import threading
import time
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


def die_with_supervisor(sig: signal.Signals = signal.SIGTERM) -> None:
    """`die_with_parent`, and if the parent is a shell that was only asked to run us, with its parent.

    Such a shell (`sh -c "python -m ..."`, as DVC starts a command) outlives whoever started it, and
    waits for us.
    """
    parent = os.getppid()
    supervisor = supervisor_of(parent)
    die_with_parent(parent, sig)
    if supervisor == parent:
        return
    if supervisor <= 1 and not _init_is_dvc():  # DVC ended before we could look
        os.kill(os.getpid(), sig)
        return
    try:
        handle = os.pidfd_open(supervisor)
    except ProcessLookupError:
        os.kill(os.getpid(), sig)
        return

    def wait() -> None:
        select.select([handle], [], [])
        os.kill(os.getpid(), sig)

    threading.Thread(target=wait, daemon=True, name="supervisor").start()


def _init_is_dvc() -> bool:
    """Whether DVC is the first process, as in a container made for it."""
    try:
        return b"dvc" in Path("/proc/1/cmdline").read_bytes()
    except OSError:
        return False


def supervisor_of(parent: int) -> int:
    """The parent of a shell with a command (`sh -c`), or `parent` itself if it is no such shell."""
    try:
        arguments = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return parent
    is_wrapper = arguments[0].endswith(b"sh") and b"-c" in arguments[1:]
    grandparent = parent_of(parent)
    return grandparent if is_wrapper and grandparent is not None else parent


def tree_memory_gib(pid: int) -> float:
    """Resident memory of a process and all its descendants, shared pages counted once (PSS)."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            children.setdefault(int(_stat(folder)[1]), []).append(int(folder.name))
    total_kib, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
                    break
    return total_kib / 2**20


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has ended for memory: of our control group and what is below it.

    Where that does not count them (no cgroup v2, or its root), of the whole machine since boot.
    `root` is what holds proc and sys.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    own = [line.removeprefix("0::/") for line in groups if line.startswith("0::/")]
    places = [root / "sys/fs/cgroup" / name / "memory.events" for name in own]
    for path in (*places, root / "proc/vmstat"):
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def end_group(group: int, sig: signal.Signals) -> None:
    """Send `sig` to a process group that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, sig)


def end_orphans(group: int, wait_s: float = 5.0) -> None:
    """SIGKILL what is left of a group whose leader is gone, and wait until it has ended.

    A group that has a leader may be another's by now, and is left alone.
    """
    deadline = time.monotonic() + wait_s
    while started_ticks(group) is None and _has_members(group) and time.monotonic() < deadline:
        end_group(group, signal.SIGKILL)
        time.sleep(0.05)


def _has_members(group: int) -> bool:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            state, _, member_of, *fields = _stat(folder)
            # One whose first thread has ended looks like a zombie while others hold its files.
            is_there = state not in "ZX" or int(fields[14]) > 1
            if is_there and int(member_of) == group:
                return True
    return False


def started_ticks(pid: int) -> int | None:
    """When the process was started, in clock ticks since boot; None if it is gone, or a zombie.

    With the PID it names one process for good: a PID alone is given again after a while.
    """
    try:
        state, *fields = _stat(Path(f"/proc/{pid}"))
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def parent_of(pid: int) -> int | None:
    """The PID of the process's parent; None if the process is gone."""
    try:
        return int(_stat(Path(f"/proc/{pid}"))[1])
    except OSError:
        return None


def _stat(folder: Path) -> list[str]:
    """What /proc says of a process after its name, which may hold blanks: state, parent, group, ..."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def is_running(pid: int, ticks: int) -> bool:
    """Whether the process that had this PID and start is still there; a stopped one is."""
    return started_ticks(pid) == ticks
