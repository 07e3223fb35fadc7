"""The whole look, from recordings: what is read, measured, left out, and what comes of it."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from components.preflight import Expected, inspect
from components.preflight.dear_checks import FULL
from components.preflight.readings import (
    AllReduce,
    Bandwidth,
    DiskSpeed,
    KernelLogReading,
    Measurements,
    Readings,
)
from components.preflight.recorded import Recording
from components.preflight.report import CHECKS, Finding, Report
from components.preflight.thresholds import SKUS, Sku, load_thresholds
from tests.unit.preflight.recordings.made import (
    HEALTHY,
    THRESHOLDS,
    gpu,
    sick,
    sick_gpu,
    xid_line,
)

MEASURED = HEALTHY.measurements
ALL_DEAR = {"disk_speed", "memory_bandwidth", "matmul", "all_reduce"}
THREE = ALL_DEAR - {"all_reduce"}


@dataclass
class Asked:
    """A recording that remembers what was asked of it."""

    recording: Recording
    checks: list[set[str]] = field(default_factory=list)

    def read(self) -> Readings:
        return self.recording.read()

    def measure(self, readings: Readings, sku: Sku, checks: Collection[str]) -> Measurements:
        self.checks.append(set(checks))
        return self.recording.measure(readings, sku, checks)


def look(recording: Recording, dear: bool = True, **options: Any) -> Report:
    report = inspect(recording, THRESHOLDS, dear, **options)
    assert {finding.check for finding in report.findings} <= set(CHECKS)
    return report


def not_ok(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.status != "ok"]


def measured(**changes: Any) -> Recording:
    return replace(HEALTHY, measurements=replace(MEASURED, **changes))


def test_a_healthy_node_is_ok_in_everything() -> None:
    report = look(HEALTHY, expected=Expected(2, "h100-sxm"), commit="abc")
    assert (report.verdict, report.fatal, report.sku) == ("ok", False, "h100-sxm")
    assert not_ok(report) == []
    assert len(report.findings) == 2 + 2 * 11 + 7 + 2 + 3 + 3 + 1
    assert (report.node, report.at, report.commit) == ("made-up", 1795600000.0, "abc")


@pytest.mark.parametrize(
    ("recording", "expected", "check", "fatal"),
    [
        (sick_gpu(ecc_uncorrected=1), Expected(2), "ecc", True),
        (sick(kernel_log=KernelLogReading((xid_line(79, 9.0),), 99.0)), Expected(2), "xid", True),
        (sick(gpus=HEALTHY.readings.gpus[:1]), Expected(2), "gpu_count", True),
        (HEALTHY, Expected(2, "h200"), "gpu_kind", False),
        (sick_gpu(lost="NVML: GPU is lost"), Expected(2), "gpu_lost", True),
        (sick_gpu(clock_event_reasons=0x40), Expected(2), "clocks", False),
    ],
)
def test_a_sick_node_is_refused_and_not_measured(
    recording: Recording, expected: Expected, check: str, fatal: bool
) -> None:
    source = Asked(recording)
    report = inspect(source, THRESHOLDS, True, expected=expected)
    failed = [finding for finding in report.findings if finding.status == "fail"]
    assert [finding.check for finding in failed] == [check]
    assert (report.verdict, report.fatal) == ("fail", fatal)
    assert source.checks == []
    skipped = {f.check for f in report.findings if "refuse this node" in f.message}
    assert skipped >= THREE


@pytest.mark.parametrize(
    ("num_gpus", "dear", "gang", "wanted"),
    [
        (2, True, False, [ALL_DEAR]),
        (1, True, False, [THREE]),
        (0, True, False, [THREE]),
        (0, True, True, [ALL_DEAR]),
        (2, False, True, [{"all_reduce"}]),
        (2, False, False, []),
    ],
)
def test_what_is_measured_depends_on_the_stamp_the_gang_and_the_gpus(
    num_gpus: int, dear: bool, gang: bool, wanted: list[set[str]]
) -> None:
    source = Asked(sick(gpus=HEALTHY.readings.gpus[:num_gpus]))
    inspect(source, THRESHOLDS, dear, gang=gang)
    assert source.checks == wanted


@pytest.mark.parametrize(
    ("recording", "dear", "number"),
    [
        (HEALTHY, True, 2),
        (HEALTHY, False, 0),
        (sick_gpu(ecc_uncorrected=1), True, 0),
        (measured(matmuls=MEASURED.matmuls[:2]), True, 1),
        (measured(matmuls=MEASURED.matmuls[:1], bandwidths=MEASURED.bandwidths[:1]), True, 0),
        (measured(matmuls=(), bandwidths=(), gpu_fault="CUDA error"), True, 0),
    ],
)
def test_a_report_says_how_many_gpus_it_has_measured(
    recording: Recording, dear: bool, number: int
) -> None:
    """The first figure of each kind is the host's, and counts for no GPU."""
    assert look(recording, dear).num_gpus_measured == number


def test_a_pod_without_gpus_is_not_refused_for_the_nodes_gpus() -> None:
    report = look(sick_gpu(ecc_uncorrected=5), dear=False, expected=Expected(0))
    assert (report.verdict, report.sku) == ("ok", "cpu")


def test_a_node_whose_gpus_are_all_gone_is_no_cpu_node() -> None:
    gone = sick(gpus=(gpu(lost="NVML: GPU is lost"),))
    assert look(gone).sku == "default"
    assert look(sick(gpus=(), gpu_fault="NVML: Driver Not Loaded"), expected=Expected(8)).sku == (
        "default"
    )


WRONG = replace(MEASURED.matmuls[1], wrong=3)
OTHER_DIGEST = replace(MEASURED.matmuls[1], digest="0" * 64)
SLOW = replace(MEASURED.matmuls[1], tflops=300.0)
SILENT = AllReduce(4, 2, None, 0, None, timed_out="not all of 4 ranks met")


@pytest.mark.parametrize(
    ("changes", "check", "status", "fatal"),
    [
        ({"matmuls": (WRONG,)}, "matmul", "fail", True),
        ({"matmuls": (OTHER_DIGEST,)}, "matmul", "fail", True),
        ({"matmuls": (SLOW,)}, "matmul", "fail", False),
        ({"matmuls": (), "gpu_fault": "CUDA error"}, "matmul", "fail", False),
        ({"bandwidths": (Bandwidth(0, 2000.0),)}, "memory_bandwidth", "fail", False),
        ({"bandwidths": (Bandwidth(None, 0.5),)}, "memory_bandwidth", "fail", False),
        ({"disks": (DiskSpeed("/tmp", 5.0, 900.0, True),)}, "disk_speed", "fail", False),
        ({"disks": (DiskSpeed("/tmp", 900.0, 5.0, True),)}, "disk_speed", "fail", False),
        ({"disks": (DiskSpeed("/data", 5.0, 900.0, True),)}, "disk_speed", "warn", False),
        ({"disks": (DiskSpeed("/tmp", None, None, False, FULL[0]),)}, "disk_speed", "fail", False),
        (
            {"disks": (DiskSpeed("/data", None, None, False, FULL[0]),)},
            "disk_speed",
            "inconclusive",
            False,
        ),
        ({"disks": (DiskSpeed("/data", None, None, False, "EIO"),)}, "disk_speed", "fail", False),
        ({"all_reduce": AllReduce(2, 1, 90.0, 0, 0.0)}, "all_reduce", "fail", False),
        ({"all_reduce": AllReduce(16, 2, 300.0, 7, 0.0)}, "all_reduce", "fail", False),
        ({"all_reduce": AllReduce(16, 2, 300.0, 0, -900.0)}, "clock_skew", "warn", False),
        ({"all_reduce": SILENT}, "all_reduce", "inconclusive", False),
        ({"all_reduce": replace(SILENT, num_nodes=1)}, "all_reduce", "fail", False),
        ({"all_reduce": replace(SILENT, fault="CUDA error")}, "all_reduce", "fail", False),
    ],
)
def test_one_bad_measurement_is_one_finding(
    changes: dict[str, Any], check: str, status: str, fatal: bool
) -> None:
    report = look(measured(**changes))
    assert [(f.check, f.status, f.fatal) for f in not_ok(report)] == [(check, status, fatal)]
    assert report.verdict == status


def test_gangs_pass_over_any_network_and_tell_how_fast_it_is() -> None:
    """One GPU a node behind a perfect adapter of 400 Gb/s, by the limits as they are shipped."""
    report = look(measured(all_reduce=AllReduce(2, 2, 49.0, 0, 0.0)), gang=True)
    (finding,) = [found for found in report.findings if found.check == "all_reduce"]
    assert (report.verdict, finding.status, finding.value) == ("ok", "ok", 49.0)
    assert finding.message == "2 ranks on 2 nodes: bus bandwidth 49 GB/s, not judged"


def test_a_site_that_knows_its_network_sets_a_floor_between_nodes(tmp_path: Path) -> None:
    path = tmp_path / "skus.yaml"
    text, floor = SKUS.read_text(), "all_reduce: {bus_gb_per_s_min: 30, node"
    head, h100 = text.split("\nh100-sxm:", 1)
    path.write_text(head + "\nh100-sxm:" + h100.replace("all_reduce: {node", floor, 1))
    slow = measured(all_reduce=AllReduce(2, 2, 29.0, 0, 0.0))
    report = inspect(slow, load_thresholds(path), True, gang=True)
    assert [(f.check, f.status, f.limit) for f in not_ok(report)] == [("all_reduce", "fail", 30.0)]


def test_a_reading_out_of_the_page_cache_is_not_judged() -> None:
    report = look(measured(disks=(DiskSpeed("/tmp", 900.0, 5.0, False),)))
    assert report.verdict == "ok"
