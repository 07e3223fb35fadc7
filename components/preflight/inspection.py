"""The whole look at a node: readings, thresholds, findings, one report.

Pure but for the source it reads from and the time it takes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from components.preflight.dear_checks import check_measurements
from components.preflight.gpu_checks import (
    check_gpu,
    check_gpu_count,
    check_gpu_in_use,
    check_gpu_kind,
)
from components.preflight.node_checks import check_node
from components.preflight.readings import Measurements, Readings, Source
from components.preflight.report import DEAR_CHECKS, Finding, Report, verdict_of
from components.preflight.thresholds import Sku, Thresholds

UNKNOWN_GPU = ("unknown",)


@dataclass(frozen=True)
class Expected:
    """What the pod asked for, or the node is said to have. None: nobody said."""

    gpus: int | None = None
    """0: the GPUs of the node, if any are visible, are none of this pod's business."""
    kind: str | None = None
    """A key of skus.yaml, or a part of NVML's device name."""
    on_node: int | None = None
    """How many Kubernetes counts on the node, for whoever sees all of them."""
    may_share: bool = True
    """Whether pods may share them or have slices of them: each counts several times there then."""
    repaired_at: float | None = None
    """Unix seconds, by the node controller's clock: when the last repair of the node was reported."""


def inspect(
    source: Source,
    thresholds: Thresholds,
    dear: bool = False,
    *,
    gang: bool = False,
    expected: Expected = Expected(),
    commit: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Read, judge, and if `dear` measure and judge that too.

    Nothing is measured on a node that the cheap checks already refuse. The sum over a gang is
    measured whenever there is one (`gang`): it is about the way between these nodes, for which no
    single node's stamp can vouch, and a peer that stayed away would leave the others waiting.
    """
    begin = clock()
    readings = source.read()
    if expected.gpus == 0:
        readings = replace(readings, gpus=(), gpu_fault=None)
    sku = _sku_of(readings, expected, thresholds)
    findings = _cheap(readings, sku, expected, thresholds)
    wanted = _wanted(dear, gang, len(readings.gpus))
    measured = Measurements()
    if wanted and verdict_of(findings) == "fail":
        why = "not measured: the cheap checks refuse this node already"
        findings += [Finding(check, "skipped", why) for check in DEAR_CHECKS if check in wanted]
    elif wanted:
        measured = source.measure(readings, sku, wanted)
        findings += check_measurements(measured, readings.disks, sku)
    elapsed = round(clock() - begin, 3)
    num_gpus = _num_gpus(measured)
    return Report(readings.node, readings.at, sku.name, tuple(findings), elapsed, commit, num_gpus)


def _num_gpus(measured: Measurements) -> int:
    """Those that were measured in all that a stamp stands for."""
    multiplied = {figure.device for figure in measured.matmuls}
    copied = {figure.device for figure in measured.bandwidths}
    return len((multiplied & copied) - {None})


def _sku_of(readings: Readings, expected: Expected, thresholds: Thresholds) -> Sku:
    names = tuple(gpu.name for gpu in readings.gpus if gpu.lost is None)
    if not names and (readings.gpus or expected.gpus or expected.on_node):
        names = UNKNOWN_GPU
    return thresholds.sku_of(names)


def _cheap(
    readings: Readings, sku: Sku, expected: Expected, thresholds: Thresholds
) -> list[Finding]:
    counted = check_gpu_count(
        readings.gpus, readings.gpu_fault, expected.gpus, expected.on_node, expected.may_share
    )
    findings = [counted]
    if readings.gpus:
        findings.append(check_gpu_kind(readings.gpus, sku, expected.kind))
    alone = len(readings.gpus) == 1
    for gpu in readings.gpus:
        findings += check_gpu(gpu, sku.gpu, alone)
        if expected.gpus and gpu.lost is None:
            findings.append(check_gpu_in_use(gpu, sku.gpu.memory_used_gib_max))
    table = thresholds.xids if readings.kernel_log.lines else None
    return findings + check_node(readings, sku.node, table, expected.repaired_at)


def _wanted(dear: bool, gang: bool, num_gpus: int) -> frozenset[str]:
    wanted = set(DEAR_CHECKS) if dear else set()
    if not gang and num_gpus < 2:
        wanted.discard("all_reduce")
    return frozenset(wanted | ({"all_reduce"} if gang else set()))
