"""NVIDIA's own bindings, driven by a library that behaves as nvml.h says."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pynvml
import pytest

from components.preflight.nvml import read_gpus
from components.preflight.readings import NO_DRIVER, GpuReading

SOURCE = Path(__file__).parent / "fake_nvml.c"
READINGS = {
    "ecc_enabled",
    "ecc_uncorrected",
    "sram_threshold_exceeded",
    "rows_remapped",
    "temperature_c",
    "slowdown_c",
    "memory_temperature_c",
    "memory_max_c",
    "clock_event_reasons",
    "sm_clock_mhz",
    "sm_clock_max_mhz",
    "power_limit_w",
    "power_default_w",
    "pcie_width",
    "pcie_width_max",
    "nvlinks_active",
    "fabric_state",
    "recovery_action",
    "memory_used_gib",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++, as the set-up does")
    built = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    command = [compiler, "-x", "c", "-shared", "-fPIC", "-o", str(built), str(SOURCE)]
    subprocess.run(command, check=True)
    return built


@pytest.fixture
def gpus(library: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[GpuReading, ...]:
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    found, fault = read_gpus()
    assert fault is None
    return found


def test_a_gpu_that_answers_gives_every_reading(gpus: tuple[GpuReading, ...]) -> None:
    assert gpus[0] == GpuReading(
        index=0,
        name="NVIDIA H100 80GB HBM3",
        uuid="GPU-0",
        pci="0000:3b:00",
        lost=None,
        missing={},
        ecc_enabled=True,
        ecc_uncorrected=5,
        sram_threshold_exceeded=True,
        remap_pending=True,
        remap_failed=False,
        rows_remapped=5,
        temperature_c=41,
        slowdown_c=87,
        memory_temperature_c=52,
        memory_max_c=95,
        clock_event_reasons=0x44,  # by the name that drivers before R535 know
        sm_clock_mhz=345,
        sm_clock_max_mhz=1980,
        power_limit_w=650.0,
        power_default_w=700.0,
        pcie_width=8,
        pcie_width_max=16,
        nvlinks_active=(True,) * 4 + (False,) + (True,) * 13,
        nvlink_recoveries=6,
        fabric_state=3,
        fabric_status=0,
        recovery_action=2,
        memory_used_gib=3.0,
    )


def test_a_gpu_that_supports_little_gives_reasons_and_no_crash(
    gpus: tuple[GpuReading, ...],
) -> None:
    assert gpus[1].missing == dict.fromkeys(READINGS, "NVML: Not Supported")
    assert gpus[1] == GpuReading(1, "NVIDIA Thing", "GPU-1", "0000:3c:00", None, gpus[1].missing)


def test_a_gpu_that_is_lost_says_so(gpus: tuple[GpuReading, ...]) -> None:
    lost = GpuReading(2, "NVIDIA H100 80GB HBM3", "GPU-2", "0000:3d:00", "NVML: GPU is lost")
    assert gpus[2] == lost


def test_a_machine_without_a_driver_says_why_it_shows_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_library(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", no_library)
    assert read_gpus() == ((), NO_DRIVER)
