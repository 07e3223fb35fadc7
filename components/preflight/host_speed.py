"""Measuring the host: memory by copies on all cores, a disk by one file."""

import errno
import mmap
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from components.preflight.machine import usable_cores, usable_memory, within
from components.preflight.readings import Bandwidth, DiskSpeed

MIB = 2**20
COPY_MIB = 32
"""For each core: more than its share of any cache."""
MEMORY_SHARE = 4
"""Copies take at most this part, a quarter, of the memory that the container may use."""
BLOCK = 4 * MIB
DISK_TIMEOUT_S = 60.0
"""Then the disk is refused whatever its thresholds say."""


def num_copies(cores: int, memory_bytes: int) -> int:
    """How many copies run side by side: one for each core, as far as there is memory for them."""
    return max(1, min(cores, memory_bytes // MEMORY_SHARE // (2 * COPY_MIB * MIB)))


def host_bandwidth(seconds: float, num_threads: int | None = None) -> Bandwidth:
    """Bytes read plus bytes written by copies that run side by side, by default `num_copies` of
    what this container may use: a big node's cores are not all this pod's, nor is its memory.

    numpy lets go of the interpreter's lock while it copies.
    """
    threads = num_threads or num_copies(usable_cores(), usable_memory())
    source = np.ones((threads, COPY_MIB * MIB), dtype=np.uint8)
    target = np.empty_like(source)
    target.fill(0)  # the first touch pays for the pages
    begin = time.perf_counter()

    def copies(thread: int) -> int:
        done = 0
        while time.perf_counter() - begin < seconds:
            np.copyto(target[thread], source[thread])
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(copies, range(threads)))
    elapsed_s = time.perf_counter() - begin
    return Bandwidth(None, 2 * count * COPY_MIB * MIB / elapsed_s / 1e9)


def disk_speeds(folders: Sequence[Path], mib: int) -> tuple[DiskSpeed, ...]:
    """One after the other: two paths may be one disk."""
    return tuple(disk_speed(folder, mib) for folder in folders)


def disk_speed(folder: Path, mib: int, timeout_s: float = DISK_TIMEOUT_S) -> DiskSpeed:
    """Write and sync a file of `mib` MiB and read it again; nothing of it stays, even if killed.

    With O_DIRECT where the file system has it. Random bytes, since some disks compress; compared
    when they come back.
    """
    told = within(timeout_s, lambda: _disk_speed(folder, mib))
    return told or DiskSpeed(str(folder), None, None, False, f"no answer in {timeout_s:g} s")


def _disk_speed(folder: Path, mib: int) -> DiskSpeed:
    try:
        try:
            return _timed(folder, mib, os.O_DIRECT)
        except OSError:  # tmpfs, overlays and network file systems may have none
            return _timed(folder, mib, 0)
    except OSError as error:
        fault = os.strerror(error.errno) if error.errno else str(error)
        return DiskSpeed(str(folder), None, None, False, fault)


def _timed(folder: Path, mib: int, flag: int) -> DiskSpeed:
    count = max(1, mib * MIB // BLOCK)
    size_mb = count * BLOCK / 1e6
    descriptor = _nameless(folder, flag)
    try:
        with mmap.mmap(-1, BLOCK) as block, mmap.mmap(-1, BLOCK) as back:  # O_DIRECT: aligned
            block.write(os.urandom(BLOCK))
            write_s = _write(descriptor, block, count)
            read_s, equal = _read(descriptor, block, back, count)
    finally:
        os.close(descriptor)
    fault = None if equal else "the bytes that came back are not those that were written"
    return DiskSpeed(str(folder), size_mb / write_s, size_mb / read_s, flag != 0, fault)


def _nameless(folder: Path, flag: int) -> int:
    """A new file that has lost its name already, so its space is free when this process ends."""
    path = folder / f".headrace-preflight-{os.getpid()}-{secrets.token_hex(4)}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flag, 0o600)
    path.unlink()
    return descriptor


def _write(descriptor: int, block: mmap.mmap, count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        if os.write(descriptor, block) != len(block):
            raise OSError(errno.ENOSPC, "a write was cut short")  # the next one would say so
    os.fsync(descriptor)
    return time.perf_counter() - begin


def _read(descriptor: int, expected: mmap.mmap, block: mmap.mmap, count: int) -> tuple[float, bool]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    elapsed_s, equal = 0.0, True
    for _ in range(count):
        begin = time.perf_counter()
        got = os.readv(descriptor, [block])
        elapsed_s += time.perf_counter() - begin
        equal = equal and got == len(block) and block[:] == expected[:]
    return elapsed_s, equal
