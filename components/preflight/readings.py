"""What is read of a node, apart from what is thought of it.

A reading that the machine, the driver or the container does not give is None, with the reason in
`missing` where somebody knows it. The same types are a recording: see `recorded.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from components.preflight.report import CLOSED
from components.preflight.thresholds import Sku

NO_DRIVER = "no NVIDIA driver here (libnvidia-ml.so.1)"
"""The one reason for there being no GPU that is no fault, where none is said to be."""
NO_ANSWER = "NVML: no answer"
"""How the reason begins where the driver hangs."""


@dataclass(frozen=True)
class GpuReading:
    """One GPU as NVML shows it at one instant."""

    __pydantic_config__ = CLOSED

    index: int
    name: str
    uuid: str
    pci: str
    """PCI bus id as the kernel log writes it, `0000:3b:00`."""
    lost: str | None = None
    """Why NVML cannot talk to it any more; every other reading is then None."""
    missing: dict[str, str] | None = None
    """Reading -> why there is none."""
    ecc_enabled: bool | None = None
    ecc_uncorrected: int | None = None
    """Since the driver was loaded or the GPU reset."""
    sram_threshold_exceeded: bool | None = None
    """The lasting count of uncorrectable SRAM errors has reached NVIDIA's limit for a replacement."""
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    rows_remapped: int | None = None
    temperature_c: int | None = None
    slowdown_c: int | None = None
    """Where the GPU's own hardware begins to slow it down."""
    memory_temperature_c: int | None = None
    memory_max_c: int | None = None
    clock_event_reasons: int | None = None
    """Bit mask, nvmlClocksEventReasons."""
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    nvlinks_active: tuple[bool, ...] | None = None
    """One for each link the GPU has."""
    nvlink_recoveries: int | None = None
    """Times that a link was lost and trained again, over all links."""
    fabric_state: int | None = None
    """nvmlGpuFabricState_t: 0 has none, 1 not started, 2 in progress, 3 completed."""
    fabric_status: int | None = None
    """nvmlReturn_t of the registration, 0 where it succeeded."""
    memory_used_gib: float | None = None
    """By whatever runs there, the driver's own share aside."""
    recovery_action: int | None = None
    """nvmlDeviceGpuRecoveryAction_t: 0 none, else what the driver asks for."""


@dataclass(frozen=True)
class PortReading:
    """One port under /sys/class/infiniband."""

    __pydantic_config__ = CLOSED

    name: str
    """`mlx5_0/1`."""
    link_layer: str
    state: str
    """`ACTIVE`, `INIT`, `ARMED`, `DOWN`."""
    physical_state: str
    """`LinkUp`, `Polling`, `Disabled`, ..."""
    rate_gb_per_s: float | None
    """Gigabits."""


@dataclass(frozen=True)
class DiskReading:
    """One file system that a stage will write to."""

    __pydantic_config__ = CLOSED

    path: str
    shared: bool
    """Other nodes see it too, so that it is full is not this node's fault."""
    used_fraction: float | None
    """Of what an unprivileged process may use."""
    inodes_used_fraction: float | None
    """None where the file system does not count them."""
    free_gib: float | None
    fault: str | None = None


@dataclass(frozen=True)
class ClockReading:
    """What the kernel knows of its clock (adjtimex)."""

    __pydantic_config__ = CLOSED

    synchronised: bool | None
    error_ms: float | None
    """The synchronising daemon's estimate."""
    fault: str | None = None


@dataclass(frozen=True)
class KernelLogReading:
    """The kernel's lines about Xids."""

    __pydantic_config__ = CLOSED

    lines: tuple[str, ...]
    uptime_s: float
    fault: str | None = None
    """Why it could not be read; a restricted pod may not, the node agent does."""


@dataclass(frozen=True)
class Readings:
    """All that is cheap to read of a node, at one instant."""

    __pydantic_config__ = CLOSED

    node: str
    at: float
    """Unix seconds."""
    gpus: tuple[GpuReading, ...]
    gpu_fault: str | None
    """Why NVML shows no GPU."""
    ports: tuple[PortReading, ...]
    disks: tuple[DiskReading, ...]
    clock: ClockReading
    kernel_log: KernelLogReading
    memory_pressure_percent: float | None
    """PSI: share of the last minute in which every task waited for memory."""
    host_ecc_uncorrected: int | None
    """Since boot (EDAC); None where the kernel counts none."""


@dataclass(frozen=True)
class Matmul:
    """A matrix product with a known answer, over and over."""

    __pydantic_config__ = CLOSED

    device: int | None
    dtype: str
    rounds: int
    wrong: int
    """Elements that differed from the answer, over all rounds and the copy to the neighbour."""
    digest: str
    expected_digest: str
    tflops: float


@dataclass(frozen=True)
class Bandwidth:
    """Bytes read plus bytes written over time."""

    __pydantic_config__ = CLOSED

    device: int | None
    gb_per_s: float


@dataclass(frozen=True)
class DiskSpeed:
    """A file written, synced and read again."""

    __pydantic_config__ = CLOSED

    path: str
    write_mb_per_s: float | None
    read_mb_per_s: float | None
    direct: bool
    """Around the page cache; else the reading is the cache's."""
    fault: str | None = None


@dataclass(frozen=True)
class AllReduce:
    """Sums over all ranks of a gang, or of the GPUs of one node."""

    __pydantic_config__ = CLOSED

    num_ranks: int
    num_nodes: int
    """Both 0 where the gang's members never became known."""
    bus_gb_per_s: float | None
    """None where it was not measured: somebody is missing, failed, or is alone."""
    wrong: int
    """Elements of this node's ranks that are not the known sum."""
    skew_ms: float | None
    """This node's clock against the gang's median, to the precision of a barrier."""
    timed_out: str | None = None
    """A peer never came, or fell silent."""
    fault: str | None = None
    """This node's own rank failed."""


@dataclass(frozen=True)
class Measurements:
    """What costs seconds of a device; empty where it was not asked for or does not apply."""

    __pydantic_config__ = CLOSED

    disks: tuple[DiskSpeed, ...] = ()
    bandwidths: tuple[Bandwidth, ...] = ()
    matmuls: tuple[Matmul, ...] = ()
    all_reduce: AllReduce | None = None
    gpu_fault: str | None = None
    """Why the GPUs could not be measured, though NVML shows them."""


class Source(Protocol):
    """Where readings come from: this machine, or a recording."""

    def read(self) -> Readings:
        """The cheap ones: well under a second, changes nothing, never raises for a sick device."""

    def measure(self, readings: Readings, sku: Sku, checks: Collection[str]) -> Measurements:
        """The dear ones of `checks` (names of report.DEAR_CHECKS); sizes and limits from `sku`."""
