"""Readings of this machine, and of folders made as /sys and /proc are."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from components.preflight.host_speed import disk_speed, host_bandwidth, num_copies
from components.preflight.machine import (
    read_clock,
    read_disk,
    read_host_ecc,
    read_memory_pressure,
    read_ports,
    usable_cores,
    usable_memory,
    within,
)
from components.preflight.readings import PortReading


def test_a_disk_is_as_full_as_df_says(tmp_path: Path) -> None:
    reading = read_disk(tmp_path, shared=False)
    usage = shutil.disk_usage(tmp_path)
    assert reading.used_fraction == pytest.approx(usage.used / (usage.used + usage.free), abs=1e-3)
    assert reading.free_gib == pytest.approx(usage.free / 2**30, rel=1e-2)
    assert (reading.path, reading.shared, reading.fault) == (str(tmp_path), False, None)


def test_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert read_disk(tmp_path / "none", shared=True).fault == "No such file or directory"


def test_whoever_does_not_answer_is_not_waited_for() -> None:
    assert within(0.05, threading.Event().wait) is None
    assert within(5.0, lambda: 7) == 7


def test_the_kernel_tells_of_its_clock() -> None:
    reading = read_clock()
    assert (reading.synchronised is None) == (reading.fault is not None)
    if reading.fault is None:
        assert reading.error_ms is not None
        assert 0 <= reading.error_ms < 1e6


def test_pressure_is_the_share_of_the_last_minute(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_text(
        "some avg10=9.00 avg60=8.00 avg300=7.00 total=6\n"
        "full avg10=5.00 avg60=4.25 avg300=3.00 total=2\n"
    )
    assert read_memory_pressure(path) == 4.25
    assert read_memory_pressure(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_a_quota_of_the_container_leaves_so_many_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores(written(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "1048576"}, 2**20),
        ({"memory/memory.limit_in_bytes": "1048576"}, 2**20),
        ({"memory.max": "max"}, None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({}, None),
    ],
)
def test_a_limit_of_the_container_leaves_so_much_memory(
    files: dict[str, str], limit: int | None, tmp_path: Path
) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usable_memory(written(tmp_path, files)) == (limit or machine)


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("cores", "gib", "number"), [(192, 8, 32), (4, 8, 4), (192, 768, 192), (8, 0.01, 1)]
)
def test_copies_take_a_quarter_of_the_containers_memory_at_most(
    cores: int, gib: float, number: int
) -> None:
    assert num_copies(cores, int(gib * 2**30)) == number


def test_memory_errors_are_summed_over_controllers(tmp_path: Path) -> None:
    assert read_host_ecc(tmp_path) is None
    for number, count in enumerate((0, 2, 3)):
        (tmp_path / f"mc{number}").mkdir()
        (tmp_path / f"mc{number}" / "ue_count").write_text(f"{count}\n")
    assert read_host_ecc(tmp_path) == 5


def test_ports_are_read_as_sysfs_writes_them(tmp_path: Path) -> None:
    for name, state, physical, rate in (
        ("mlx5_1", "1: DOWN", "2: Polling", "10 Gb/sec (4X SDR)"),
        ("mlx5_0", "4: ACTIVE", "5: LinkUp", "400 Gb/sec (4X NDR)"),
    ):
        port = tmp_path / name / "ports" / "1"
        port.mkdir(parents=True)
        (port / "link_layer").write_text("InfiniBand\n")
        (port / "state").write_text(state + "\n")
        (port / "phys_state").write_text(physical + "\n")
        (port / "rate").write_text(rate + "\n")
    (tmp_path / "mlx5_2" / "ports" / "1").mkdir(parents=True)
    assert read_ports(tmp_path) == (
        PortReading("mlx5_0/1", "InfiniBand", "ACTIVE", "LinkUp", 400.0),
        PortReading("mlx5_1/1", "InfiniBand", "DOWN", "Polling", 10.0),
        PortReading("mlx5_2/1", "unknown", "unknown", "unknown", None),
    )
    assert read_ports(tmp_path / "none") == ()


def test_a_disk_is_timed_and_nothing_stays_on_it(tmp_path: Path) -> None:
    figure = disk_speed(tmp_path, mib=4)
    assert figure.fault is None
    assert figure.write_mb_per_s is not None
    assert figure.read_mb_per_s is not None
    assert 0.1 < figure.write_mb_per_s < 1e5
    assert 0.1 < figure.read_mb_per_s < 1e6
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    assert disk_speed(tmp_path / "none", 4).fault == "No such file or directory"


def test_a_disk_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    assert disk_speed(tmp_path, 4, timeout_s=0.0).fault == "no answer in 0 s"


def test_memory_is_copied_on_every_core() -> None:
    figure = host_bandwidth(0.02, num_threads=min(2, os.cpu_count() or 1))
    assert figure.device is None
    assert figure.gb_per_s > 0
