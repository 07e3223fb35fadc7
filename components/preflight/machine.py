"""Readings of the node itself: file systems, clock, pressure, InfiniBand, the host's ECC.

All from /proc, /sys and two system calls; nothing is written and nothing needs privileges.
"""

import ctypes
import math
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from components.preflight.readings import ClockReading, DiskReading, PortReading

Answer = TypeVar("Answer")

GIB = 2**30
STATFS_TIMEOUT_S = 5.0
"""A dead network mount blocks its caller for ever; the pre-check must not wait with it."""
CGROUP = Path("/sys/fs/cgroup")
STA_UNSYNC = 0x40
TIME_ERROR = 5


def read_disks(
    local: Sequence[Path], shared: Sequence[Path], timeout_s: float = STATFS_TIMEOUT_S
) -> tuple[DiskReading, ...]:
    """One reading for each path."""
    paths = [(path, False) for path in local] + [(path, True) for path in shared]
    return tuple(read_disk(path, is_shared, timeout_s) for path, is_shared in paths)


def read_disk(path: Path, shared: bool, timeout_s: float = STATFS_TIMEOUT_S) -> DiskReading:
    """How full a file system is, as `df` counts: root's reserve is not ours to use."""
    told = within(timeout_s, lambda: _statvfs(path))
    if told is None:
        told = f"no answer in {timeout_s:g} s"
    if isinstance(told, str):
        return DiskReading(str(path), shared, None, None, None, told)
    used = told.f_blocks - told.f_bfree
    usable = used + told.f_bavail
    inodes = told.f_files - told.f_ffree
    return DiskReading(
        str(path),
        shared,
        used / usable if usable else 0.0,
        inodes / told.f_files if told.f_files else None,
        told.f_bavail * told.f_frsize / GIB,
    )


def _statvfs(path: Path) -> os.statvfs_result | str:
    try:
        return os.statvfs(path)
    except OSError as error:
        return os.strerror(error.errno or 0)


def within(timeout_s: float, call: Callable[[], Answer]) -> Answer | None:
    """What `call` returns; None if it takes longer, and then it goes on in the background.

    `call` may block in the kernel, where no signal reaches it, and must not raise.
    """
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answers[0] if answers else None


class Timex(ctypes.Structure):
    """struct timex of <sys/timex.h>."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def read_clock() -> ClockReading:
    """What the kernel thinks of its clock; `modes = 0` only asks."""
    libc = ctypes.CDLL(None, use_errno=True)
    timex = Timex(modes=0)
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        return ClockReading(None, None, f"adjtimex: {os.strerror(ctypes.get_errno())}")
    synchronised = state != TIME_ERROR and not timex.status & STA_UNSYNC
    return ClockReading(synchronised, timex.esterror / 1000)


def read_memory_pressure(path: Path = Path("/proc/pressure/memory")) -> float | None:
    """Percent of the last minute in which all tasks waited for memory; None without PSI."""
    text = _text(path)
    found = re.search(r"^full .*avg60=([\d.]+)", text or "", re.MULTILINE)
    return float(found[1]) if found else None


def read_host_ecc(root: Path = Path("/sys/devices/system/edac/mc")) -> int | None:
    """Uncorrectable errors of all memory controllers since boot; None where none is watched."""
    counts = [text for path in sorted(root.glob("mc*/ue_count")) if (text := _text(path))]
    return sum(int(text) for text in counts) if counts else None


def usable_cores(root: Path = CGROUP) -> int:
    """Cores that this process may use at once: of those it may run on, no more than its quota."""
    cores = len(os.sched_getaffinity(0))
    words = (_text(root / "cpu.max") or _cpu_max_of_v1(root / "cpu")).split()
    if len(words) != 2 or not words[0].isdigit():  # `max 100000`, or -1: no quota
        return cores
    return max(1, min(cores, math.ceil(int(words[0]) / int(words[1]))))


def _cpu_max_of_v1(folder: Path) -> str:
    return f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"


def usable_memory(root: Path = CGROUP) -> int:
    """Bytes: the machine's memory, or what a limit leaves of it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _text(root / "memory.max") or _text(root / "memory" / "memory.limit_in_bytes") or ""
    return min(machine, int(limit)) if limit.isdigit() else machine


def read_ports(root: Path = Path("/sys/class/infiniband")) -> tuple[PortReading, ...]:
    """Every port of every adapter, in the order of their names."""
    ports = sorted(root.glob("*/ports/*"))
    return tuple(_port(path) for path in ports)


def _port(path: Path) -> PortReading:
    def word(name: str) -> str:
        """`4: ACTIVE` -> `ACTIVE`."""
        return (_text(path / name) or "unknown").split(":")[-1].strip()

    rate = re.match(r"[\d.]+", _text(path / "rate") or "")
    return PortReading(
        f"{path.parts[-3]}/{path.name}",
        word("link_layer"),
        word("state"),
        word("phys_state"),
        float(rate[0]) if rate else None,
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
