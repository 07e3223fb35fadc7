"""Each check of the node around its GPUs, from readings of healthy and sick ones."""

from dataclasses import replace
from typing import Any

import pytest

from components.preflight.node_checks import (
    check_clock,
    check_disk_space,
    check_host_ecc,
    check_infiniband,
    check_memory_pressure,
    check_node,
    check_xids,
)
from components.preflight.readings import ClockReading, DiskReading, KernelLogReading, PortReading
from components.preflight.report import Finding
from tests.unit.preflight.recordings.made import HEALTHY, SKU, THRESHOLDS, xid_line

LIMITS = SKU.node
UPTIME_S = 10 * 86400.0
HOUR_S = 3600.0
ACTIVE = PortReading("mlx5_0/1", "InfiniBand", "ACTIVE", "LinkUp", 400.0)
DOWN = PortReading("mlx5_1/1", "InfiniBand", "DOWN", "Polling", 10.0)
LOCAL = DiskReading("/tmp", False, 0.5, 0.1, 100.0)


def judged(*lines: str) -> list[Finding]:
    log = KernelLogReading(lines, UPTIME_S)
    return check_xids(log, THRESHOLDS.xids, LIMITS.xid_hours * HOUR_S, HEALTHY.readings.gpus)


def test_a_healthy_node_passes_every_check() -> None:
    findings = check_node(HEALTHY.readings, LIMITS, THRESHOLDS.xids)
    assert [(finding.check, finding.status) for finding in findings] == [
        ("xid", "ok"),
        ("infiniband", "ok"),
        ("disk_space", "ok"),
        ("disk_space", "ok"),
        ("clock", "ok"),
        ("memory_pressure", "ok"),
        ("host_ecc", "ok"),
    ]


def test_a_gpu_that_fell_off_the_bus_makes_its_node_fatal_until_it_restarts() -> None:
    (finding,) = judged(xid_line(79, UPTIME_S - 200 * HOUR_S))
    assert (finding.status, finding.fatal, finding.device, finding.value) == ("fail", True, 1, 79)
    assert finding.message == (
        "GPU 1 (0000:5d:00): Xid 79 once, last 200.0 h ago: the GPU fell off the PCIe bus;"
        " asks for a restart of the node"
    )


@pytest.mark.parametrize(
    ("number", "status", "fatal"),
    [(13, "warn", False), (63, "ok", False), (95, "fail", True), (45, "warn", False)],
)
def test_an_xid_weighs_as_its_row_of_the_table_says(number: int, status: str, fatal: bool) -> None:
    (finding,) = judged(xid_line(number, UPTIME_S - HOUR_S))
    assert (finding.status, finding.fatal) == (status, fatal)


def test_an_xid_that_a_reset_mends_is_forgotten_after_a_day() -> None:
    (recent,) = judged(xid_line(95, UPTIME_S - 23.9 * HOUR_S))
    (old,) = judged(xid_line(95, UPTIME_S - 24.1 * HOUR_S))
    assert (recent.status, old.status) == ("fail", "ok")


@pytest.mark.parametrize(
    ("number", "seconds_after_the_repair", "status"),
    [
        (95, -60.0, "ok"),
        (48, -60.0, "ok"),
        (79, -60.0, "fail"),  # asks for a restart, after which the log would be empty
        (95, -3.0, "fail"),  # the two clocks may differ by so much
        (95, 1.0, "fail"),
    ],
)
def test_a_reported_repair_ends_what_was_before_it_and_nothing_after(
    number: int, seconds_after_the_repair: float, status: str
) -> None:
    """A GPU that was reset without a restart of its node: the kernel's log still has its Xid."""
    at_s = UPTIME_S - HOUR_S + seconds_after_the_repair
    log = KernelLogReading((xid_line(number, at_s),), UPTIME_S)
    read = replace(HEALTHY.readings, kernel_log=log)
    repaired_at = read.at - HOUR_S
    xid, *_ = check_node(read, LIMITS, THRESHOLDS.xids, repaired_at)
    assert (xid.check, xid.status) == ("xid", status)


def test_an_xid_that_comes_again_after_the_repair_is_counted_from_then_on() -> None:
    lines = (xid_line(95, UPTIME_S - 2 * HOUR_S), xid_line(95, UPTIME_S - 60))
    read = replace(HEALTHY.readings, kernel_log=KernelLogReading(lines, UPTIME_S))
    xid, *_ = check_node(read, LIMITS, THRESHOLDS.xids, read.at - HOUR_S)
    assert xid.status == "fail"
    assert "Xid 95 once, last 1 min ago" in xid.message


def test_an_xid_without_a_time_counts() -> None:
    (finding,) = judged("NVRM: Xid (PCI:0000:5d:00): 95, pid=1, text")
    assert finding.status == "fail"
    assert "ago" not in finding.message


def test_repeated_xids_are_one_finding_and_those_of_another_gpu_another() -> None:
    lines = [xid_line(31, UPTIME_S - 60 * minutes) for minutes in (50, 40, 30)]
    first, second = judged(*lines, xid_line(31, UPTIME_S - 60, "0000:ff:00"))
    assert first.device == 1
    assert "3 times, last 30 min ago" in first.message
    assert second.device is None
    assert "the GPU at 0000:ff:00" in second.message


def test_a_number_that_nobody_listed_is_a_warning_that_says_so() -> None:
    (finding,) = judged(xid_line(9999, UPTIME_S))
    assert (finding.status, finding.value) == ("warn", 9999)
    assert "not in xid.yaml" in finding.message


def test_a_kernel_log_that_a_pod_may_not_read_is_skipped_with_the_reason() -> None:
    log = KernelLogReading((), 1.0, "/dev/kmsg: Operation not permitted")
    (finding,) = check_xids(log, {}, 24 * HOUR_S, ())
    assert finding.status == "skipped"
    assert finding.message == "/dev/kmsg: Operation not permitted; the node agent reads it"


@pytest.mark.parametrize(
    ("ports", "expected", "rate", "status"),
    [
        ((), None, None, "skipped"),
        ((), 2, None, "fail"),
        ((ACTIVE, ACTIVE), 2, 400, "ok"),
        ((ACTIVE, DOWN), 2, None, "fail"),
        ((ACTIVE, DOWN), 1, None, "ok"),
        ((ACTIVE, DOWN), None, None, "warn"),
        ((ACTIVE, replace(ACTIVE, rate_gb_per_s=100.0)), 2, 400, "fail"),
    ],
)
def test_infiniband_ports_are_counted_against_what_the_site_expects(
    ports: tuple[PortReading, ...], expected: int | None, rate: float | None, status: str
) -> None:
    assert check_infiniband(ports, expected, rate).status == status


def test_a_port_that_is_down_is_named_with_its_state() -> None:
    message = check_infiniband((ACTIVE, DOWN), 2, None).message
    assert message == "1 of 2 InfiniBand ports active (mlx5_1/1 is DOWN, Polling)"


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({}, "ok", "/tmp: 50% used, allowed 95%, 100 GiB free"),
        ({"used_fraction": 0.97}, "fail", "/tmp: 97% used, allowed 95%"),
        ({"used_fraction": 0.97, "shared": True}, "warn", "not this node's fault"),
        ({"inodes_used_fraction": 0.99}, "fail", "99% of its inodes used"),
        ({"inodes_used_fraction": 0.99, "shared": True}, "warn", "99% of its inodes used"),
        ({"inodes_used_fraction": 1.0, "shared": True}, "inconclusive", "100% of its inodes used"),
        # As XFS makes inodes of free blocks.
        (
            {"inodes_used_fraction": 0.97, "free_gib": 0.0, "shared": True},
            "inconclusive",
            "0.00 GiB free",
        ),
        ({"free_gib": 0.25}, "fail", "0.25 GiB free, needs 1"),
        ({"free_gib": 0.25, "shared": True}, "inconclusive", "not this node's fault"),
        (
            {"used_fraction": None, "fault": "no answer in 5 s", "shared": True},
            "fail",
            "/tmp: no answer in 5 s",
        ),
        ({"inodes_used_fraction": None}, "ok", "50% used"),
    ],
)
def test_a_full_disk_is_refused_and_a_full_shared_volume_is_nobodys_fault(
    changes: dict[str, Any], status: str, told: str
) -> None:
    finding = check_disk_space(replace(LOCAL, **changes), LIMITS)
    assert finding.status == status
    assert told in finding.message


@pytest.mark.parametrize(
    ("clock", "status"),
    [
        (ClockReading(True, 0.5), "ok"),
        (ClockReading(True, 150.0), "warn"),
        (ClockReading(False, 16000.0), "warn"),
        (ClockReading(None, None, "adjtimex: Operation not permitted"), "skipped"),
    ],
)
def test_a_clock_that_nothing_synchronises_is_a_warning(clock: ClockReading, status: str) -> None:
    assert check_clock(clock, 100).status == status


def test_memory_pressure_is_a_warning_and_the_hosts_memory_errors_are_fatal() -> None:
    assert check_memory_pressure(11.0, 10).status == "warn"
    assert check_memory_pressure(10.0, 10).status == "ok"
    assert check_memory_pressure(None, 10).status == "skipped"
    sick = check_host_ecc(1)
    assert (sick.status, sick.fatal) == ("fail", True)
    assert check_host_ecc(0).status == "ok"
    assert check_host_ecc(None).status == "skipped"
