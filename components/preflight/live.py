"""This machine as a source of readings and measurements."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from components.preflight import machine
from components.preflight.children import run_children
from components.preflight.gang import Meeting, all_reduce, meet_and_sum, this_node_alone
from components.preflight.kernel_log import KMSG, read_kernel_log
from components.preflight.nvml import Gpus, read_gpus
from components.preflight.readings import NO_ANSWER, Measurements, Readings
from components.preflight.thresholds import GpuLimits, Sku

NVML_TIMEOUT_S = 30.0
"""A GPU that hangs can keep its driver from answering at all."""
HOST_S = 0.2
"""For each measurement of the CPU: a few hundred products or copies."""
SLACK_S = 120.0
"""For CUDA to start on all GPUs, beside the burn itself."""


@dataclass(frozen=True)
class Live:
    """A `Source`; it only reads, but for one nameless file while a disk is timed."""

    node: str
    local_paths: tuple[Path, ...]
    shared_paths: tuple[Path, ...]
    gang: Meeting | None = None
    kernel_log: Path = KMSG
    gpus: Gpus = read_gpus

    def read(self) -> Readings:
        told = machine.within(NVML_TIMEOUT_S, self.gpus)
        gpus, fault = told or ((), f"{NO_ANSWER} in {NVML_TIMEOUT_S:g} s")
        return Readings(
            self.node,
            time.time(),
            gpus,
            fault,
            machine.read_ports(),
            machine.read_disks(self.local_paths, self.shared_paths),
            machine.read_clock(),
            read_kernel_log(self.kernel_log),
            machine.read_memory_pressure(),
            machine.read_host_ecc(),
        )

    def measure(self, readings: Readings, sku: Sku, checks: Collection[str]) -> Measurements:
        num_gpus = len(readings.gpus)
        host = self._host(sku, checks)
        gpus = Measurements()
        if num_gpus and {"matmul", "memory_bandwidth"} & set(checks):
            gpus = measure_gpus(num_gpus, sku.gpu)
        summed = None
        if "all_reduce" in checks and gpus.gpu_fault is None:
            summed = (
                meet_and_sum(self.gang, num_gpus, sku.all_reduce)
                if self.gang
                else all_reduce(this_node_alone(), num_gpus, sku.all_reduce)
            )
        return Measurements(
            host.disks,
            host.bandwidths + gpus.bandwidths,
            host.matmuls + gpus.matmuls,
            summed,
            gpus.gpu_fault,
        )

    def _host(self, sku: Sku, checks: Collection[str]) -> Measurements:
        """numpy takes a tenth of a second to come, so only where it is needed."""
        if not {"disk_speed", "memory_bandwidth", "matmul"} & set(checks):
            return Measurements()
        from components.preflight.host_speed import disk_speeds, host_bandwidth
        from components.preflight.matmul import host_matmul

        return Measurements(
            disk_speeds(self.local_paths + self.shared_paths, sku.node.disk_test_mib),
            (host_bandwidth(HOST_S),),
            tuple(host_matmul(dtype, HOST_S) for dtype in ("float32", "float64")),
        )


def measure_gpus(num_gpus: int, limits: GpuLimits) -> Measurements:
    """Bandwidths and products of this node's GPUs, numbered as NVML numbers them."""
    arguments = [
        f"--gpus={num_gpus}",
        f"--size={limits.matmul_size}",
        f"--burn-s={limits.burn_s}",
    ]
    timeout_s = limits.burn_s + SLACK_S
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    (ended,) = run_children("components.preflight.burn", [arguments], timeout_s, environment)
    if ended.code is None:
        return Measurements(gpu_fault=f"no answer within {timeout_s:g} s")
    try:
        return TypeAdapter(Measurements).validate_json(ended.line)
    except ValidationError:
        return Measurements(gpu_fault=f"exit {ended.code}: {ended.complaint[:200] or 'no word'}")
