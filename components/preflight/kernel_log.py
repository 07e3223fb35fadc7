"""Xids in the kernel log."""

import ctypes
import errno
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from components.preflight.readings import KernelLogReading

KMSG = Path("/dev/kmsg")
XID = re.compile(
    r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9a-fA-F:.]+)(?: GPU-I:\w+)?\): (?P<number>\d+)(?:, *(?P<text>.*))?"
)
KMSG_STAMP = re.compile(r"\d+,\d+,(?P<us>\d+),")
"""Documentation/ABI/testing/dev-kmsg: `priority,sequence,microseconds,flags;text`."""
DMESG_STAMP = re.compile(r"(?:<\d+>)?\[ *(?P<s>\d+\.\d+)\]")
SYSLOG_READ_ALL, SYSLOG_SIZE_BUFFER = 3, 10
"""linux/syslog.h; the first leaves what it reads for others."""
RECORD_BYTES = 8192
"""More than any record of /dev/kmsg: a shorter read would fail with EINVAL."""


@dataclass(frozen=True)
class XidEvent:
    """One line of the driver about one GPU."""

    at_s: float | None
    """Seconds after the kernel's start; None where the line has no stamp of it."""
    pci: str
    """`0000:3b:00`, in lower case and without a function."""
    number: int
    text: str


def xids(lines: Iterable[str]) -> list[XidEvent]:
    """The Xids among the lines of /dev/kmsg, `dmesg` or a journal; the others are passed over."""
    return [event for line in lines if (event := _xid(line)) is not None]


def _xid(line: str) -> XidEvent | None:
    found = XID.search(line)
    if found is None:
        return None
    pci = found["pci"].lower().split(".")[0]
    return XidEvent(_at_s(line), pci, int(found["number"]), (found["text"] or "").strip())


def _at_s(line: str) -> float | None:
    if stamp := KMSG_STAMP.match(line):
        return int(stamp["us"]) / 1e6
    stamp = DMESG_STAMP.match(line)
    return float(stamp["s"]) if stamp else None


def read_kernel_log(path: Path = KMSG) -> KernelLogReading:
    """The lines about Xids in `path`: the kernel's own device, or a file that somebody saved.

    Where the device is out of reach, as in a container that is not privileged, the kernel is asked
    by syslog(2), for which CAP_SYSLOG alone is enough.
    """
    try:
        if path != KMSG:
            text = path.read_text(errors="replace").splitlines()
        else:
            try:
                text = _kmsg(path)
            except OSError:
                text = _syslog()
    except OSError as error:
        return KernelLogReading((), _uptime_s(), f"{path}: {os.strerror(error.errno or 0)}")
    return KernelLogReading(tuple(line for line in text if XID.search(line)), _uptime_s())


def _kmsg(path: Path) -> list[str]:
    """Every record from the oldest to now. One read gives one record; EPIPE: it was overwritten."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    lines: list[str] = []
    try:
        while True:
            try:
                record = os.read(descriptor, RECORD_BYTES)
            except BlockingIOError:
                return lines
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                continue
            if not record:
                return lines
            lines += record.decode(errors="replace").splitlines()[:1]
    finally:
        os.close(descriptor)


def _syslog() -> list[str]:
    """The kernel's whole ring, as `dmesg --syslog` reads it. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = libc.klogctl(SYSLOG_SIZE_BUFFER, None, 0)
    if size < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    buffer = ctypes.create_string_buffer(size)
    length = libc.klogctl(SYSLOG_READ_ALL, buffer, size)
    if length < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return buffer.raw[:length].decode(errors="replace").splitlines()


def _uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
