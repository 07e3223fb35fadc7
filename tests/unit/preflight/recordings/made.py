"""The healthy recording, and the ways to make it sick."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from components.preflight.readings import GpuReading, Readings
from components.preflight.recorded import Recording, load
from components.preflight.thresholds import Thresholds, load_thresholds

HEALTHY = load(Path(__file__).parent / "healthy-h100.json")
THRESHOLDS: Thresholds = load_thresholds()
SKU = THRESHOLDS.skus["h100-sxm"]
GPU: GpuReading = HEALTHY.readings.gpus[1]


def gpu(**changes: Any) -> GpuReading:
    """GPU 1 of the recording, at 0000:5d:00, with these readings instead."""
    return replace(GPU, **changes)


def sick(**changes: Any) -> Recording:
    """The recording, with these readings of the node instead."""
    return replace(HEALTHY, readings=readings(**changes))


def readings(**changes: Any) -> Readings:
    return replace(HEALTHY.readings, **changes)


def sick_gpu(**changes: Any) -> Recording:
    """The recording, with these readings of GPU 1 instead."""
    return sick(gpus=(HEALTHY.readings.gpus[0], gpu(**changes)))


def xid_line(number: int, at_s: float, pci: str = "0000:5d:00") -> str:
    """As /dev/kmsg gives it."""
    return f"4,999,{int(at_s * 1e6)},-;NVRM: Xid (PCI:{pci}): {number}, pid='<unknown>', text"
