"""Judging measurements: pure functions from figures and thresholds to findings."""

import errno
import os
from collections.abc import Sequence

from components.preflight.readings import (
    AllReduce,
    Bandwidth,
    DiskReading,
    DiskSpeed,
    Matmul,
    Measurements,
)
from components.preflight.report import ON_SHARED_VOLUME, Finding, Status
from components.preflight.thresholds import AllReduceLimits, NodeLimits, Sku

FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""What a disk's fault reads where it has no room."""


def check_measurements(
    measured: Measurements, disks: Sequence[DiskReading], sku: Sku
) -> list[Finding]:
    """One finding for each figure."""
    shared = {disk.path for disk in disks if disk.shared}
    findings = [
        *(check_disk_speed(disk, sku.node, disk.path in shared) for disk in measured.disks),
        *(check_bandwidth(figure, sku) for figure in measured.bandwidths),
        *(check_matmul(figure, sku.gpu.matmul_tflops_min) for figure in measured.matmuls),
    ]
    if measured.gpu_fault is not None:
        findings.append(Finding("matmul", "fail", f"the GPUs do not compute: {measured.gpu_fault}"))
    if measured.all_reduce is not None:
        findings += check_all_reduce(measured.all_reduce, sku.all_reduce)
    return findings


def check_disk_speed(disk: DiskSpeed, limits: NodeLimits, shared: bool) -> Finding:
    """A reading out of the page cache is shown and not judged. A slow shared volume is a warning:
    it is as slow for the other nodes. A full one tells nothing of the node.
    """
    slow: Status = "warn" if shared else "fail"
    if shared and disk.fault in FULL:
        message = f"{disk.path}: {disk.fault}; {ON_SHARED_VOLUME}"
        return Finding("disk_speed", "inconclusive", message)
    if disk.fault is not None or disk.write_mb_per_s is None or disk.read_mb_per_s is None:
        return Finding("disk_speed", "fail", f"{disk.path}: {disk.fault or 'not told'}")
    write, read = disk.write_mb_per_s, disk.read_mb_per_s
    write_min, read_min = limits.disk_write_mb_per_s_min, limits.disk_read_mb_per_s_min
    source = "" if disk.direct else " from the page cache"
    message = (
        f"{disk.path}: wrote {write:.0f} MB/s, needs {write_min:g};"
        f" read {read:.0f} MB/s{source}, needs {read_min:g}"
    )
    if disk.direct and read < read_min <= write:
        return Finding("disk_speed", slow, message, False, None, read, read_min, "MB/s")
    status = slow if write < write_min or (disk.direct and read < read_min) else "ok"
    return Finding("disk_speed", status, message, False, None, write, write_min, "MB/s")


def check_bandwidth(figure: Bandwidth, sku: Sku) -> Finding:
    """The host's memory, or one GPU's."""
    on_host = figure.device is None
    least = sku.node.memory_gb_per_s_min if on_host else sku.gpu.memory_gb_per_s_min
    place = "the host" if on_host else f"GPU {figure.device}"
    message = f"{place}: memory copies at {figure.gb_per_s:.0f} GB/s"
    message += f", needs {least:g}" if least is not None else ", not judged"
    status: Status = "fail" if least is not None and figure.gb_per_s < least else "ok"
    return Finding(
        "memory_bandwidth", status, message, False, figure.device, figure.gb_per_s, least, "GB/s"
    )


def check_matmul(figure: Matmul, tflops_min: float | None) -> Finding:
    """A wrong element is silent data corruption: nothing this device computed can be trusted."""
    device = figure.device
    place = "the CPU" if device is None else f"GPU {device}"
    if figure.wrong or figure.digest != figure.expected_digest:
        message = (
            f"{place}: wrong results, {figure.wrong} elements in {figure.rounds} products of"
            f" {figure.dtype}, digest {figure.digest[:12]} instead of {figure.expected_digest[:12]}"
        )
        return Finding("matmul", "fail", message, True, device, figure.wrong, 0, "elements")
    least = tflops_min if device is not None else None
    message = (
        f"{place}: {figure.rounds} exact products of {figure.dtype}, {figure.tflops:.3g} TFLOP/s"
    )
    message += f", needs {least:g}" if least is not None else ", speed not judged"
    status: Status = "fail" if least is not None and figure.tflops < least else "ok"
    return Finding("matmul", status, message, False, device, figure.tflops, least, "TFLOP/s")


def check_all_reduce(figure: AllReduce, limits: AllReduceLimits) -> list[Finding]:
    """Wrong sums and slow links are a failure, though not always this node's; silence of
    peers on other nodes tells nothing about this one. With several nodes their clocks are compared too.
    """
    who = f"{figure.num_ranks} ranks on {figure.num_nodes} nodes" if figure.num_ranks else "gang"
    if figure.fault is not None:
        return [Finding("all_reduce", "fail", f"{who}: {figure.fault}")]
    if figure.num_ranks == 1:  # whose bus bandwidth, 2 (n - 1) / n of its speed, is none
        return [Finding("all_reduce", "skipped", "one rank alone has nobody to sum with")]
    if figure.timed_out is not None or figure.bus_gb_per_s is None:
        why = figure.timed_out or "no figure"
        if figure.num_nodes == 1:
            return [Finding("all_reduce", "fail", f"{who}: {why}")]
        message = f"{who}: {why}; that tells nothing about this node"
        return [Finding("all_reduce", "inconclusive", message)]
    if figure.wrong:
        message = f"{who}: {figure.wrong} wrong sums"
        return [Finding("all_reduce", "fail", message, False, None, figure.wrong, 0, "elements")]
    between = figure.num_nodes > 1
    least = limits.bus_gb_per_s_min if between else limits.node_bus_gb_per_s_min
    speed = figure.bus_gb_per_s
    message = f"{who}: bus bandwidth {speed:.3g} GB/s"
    message += f", needs {least:g}" if least is not None else ", not judged"
    status: Status = "fail" if least is not None and speed < least else "ok"
    findings = [Finding("all_reduce", status, message, False, None, speed, least, "GB/s")]
    if between and figure.skew_ms is not None:
        findings.append(check_skew(figure.skew_ms, limits.skew_ms_max))
    return findings


def check_skew(skew_ms: float, most: float) -> Finding:
    """This node's clock against its peers'."""
    message = f"clock {skew_ms:+.0f} ms from the gang's median, allowed {most:g} ms"
    status: Status = "warn" if abs(skew_ms) > most else "ok"
    return Finding("clock_skew", status, message, False, None, skew_ms, most, "ms")
