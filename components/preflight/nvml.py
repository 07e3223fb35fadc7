"""GPUs as NVML shows them, by NVIDIA's own bindings (nvidia-ml-py).

A query that a GPU, a driver or a container does not answer becomes None with NVML's reason in
`missing`: a check is then skipped, and nothing crashes. A lost GPU says so in `lost`.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from components.preflight.readings import NO_DRIVER, GpuReading

Value = TypeVar("Value")

VALUE_OF_TYPE = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member of a field's union, by nvmlValueType_t."""


class Gpus(Protocol):
    """All that the pre-check asks of a driver."""

    def __call__(self) -> tuple[tuple[GpuReading, ...], str | None]:
        """A reading for each GPU that is visible here, and why there is none where there is none."""


def read_gpus() -> tuple[tuple[GpuReading, ...], str | None]:
    """`Gpus` over the real NVML. A machine without a driver answers in milliseconds."""
    import pynvml  # 20 ms that a replayed recording need not wait for

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        return (), NO_DRIVER if absent else f"NVML: {error}"
    try:
        count = pynvml.nvmlDeviceGetCount()
        return tuple(_read_gpu(pynvml, index) for index in range(count)), None
    except pynvml.NVMLError as error:
        return (), f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


class Lost(Exception):
    """The GPU does not answer any more."""


def _read_gpu(nvml: Any, index: int) -> GpuReading:
    name, uuid, pci = "unknown", "", ""
    missing: dict[str, str] = {}
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = str(nvml.nvmlDeviceGetName(handle))
        uuid = str(nvml.nvmlDeviceGetUUID(handle))
        pci = _pci(str(nvml.nvmlDeviceGetPciInfo(handle).busId))
        return GpuReading(index, name, uuid, pci, None, missing, **_values(nvml, handle, missing))
    except (Lost, nvml.NVMLError) as error:
        return GpuReading(index, name, uuid, pci, lost=f"NVML: {error}")


def _pci(bus_id: str) -> str:
    """`00000000:3B:00.0` -> `0000:3b:00`, as the kernel log writes it."""
    domain, bus, device = bus_id.lower().split(".")[0].split(":")
    return f"{domain[-4:]}:{bus}:{device}"


def _values(nvml: Any, gpu: Any, missing: dict[str, str]) -> dict[str, Any]:
    """Every other reading, by its name in GpuReading. Raises Lost."""

    def ask(name: str, query: Callable[[], Value]) -> Value | None:
        try:
            return query()
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                raise Lost(str(error)) from error
            missing[name] = f"NVML: {error}"
            return None

    rows = ask("rows_remapped", lambda: tuple(nvml.nvmlDeviceGetRemappedRows(gpu)))
    fabric = ask("fabric_state", lambda: _fabric(nvml, gpu))
    links = ask("nvlinks_active", lambda: _nvlinks(nvml, gpu))
    return {
        "ecc_enabled": ask("ecc_enabled", lambda: bool(nvml.nvmlDeviceGetEccMode(gpu)[0])),
        "ecc_uncorrected": ask(
            "ecc_uncorrected",
            lambda: int(
                nvml.nvmlDeviceGetTotalEccErrors(
                    gpu, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
                )
            ),
        ),
        "sram_threshold_exceeded": ask("sram_threshold_exceeded", lambda: _sram(nvml, gpu)),
        "rows_remapped": rows[0] + rows[1] if rows else None,
        "remap_pending": bool(rows[2]) if rows else None,
        "remap_failed": bool(rows[3]) if rows else None,
        "temperature_c": ask(
            "temperature_c", lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        ),
        "slowdown_c": ask("slowdown_c", lambda: _limit_c(nvml, gpu, "SLOWDOWN")),
        "memory_temperature_c": ask(
            "memory_temperature_c", lambda: _field(nvml, gpu, nvml.NVML_FI_DEV_MEMORY_TEMP)
        ),
        "memory_max_c": ask("memory_max_c", lambda: _limit_c(nvml, gpu, "MEM_MAX")),
        "clock_event_reasons": ask("clock_event_reasons", lambda: _event_reasons(nvml, gpu)),
        "sm_clock_mhz": ask(
            "sm_clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)
        ),
        "sm_clock_max_mhz": ask(
            "sm_clock_max_mhz", lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)
        ),
        "power_limit_w": ask(
            "power_limit_w", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000
        ),
        "power_default_w": ask(
            "power_default_w", lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu) / 1000
        ),
        "pcie_width": ask("pcie_width", lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu)),
        "pcie_width_max": ask("pcie_width_max", lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu)),
        "nvlinks_active": links,
        "nvlink_recoveries": ask(
            "nvlink_recoveries", lambda: _recoveries(nvml, gpu, len(links or ()))
        ),
        "fabric_state": fabric[0] if fabric else None,
        "fabric_status": fabric[1] if fabric else None,
        "memory_used_gib": ask("memory_used_gib", lambda: _memory_used_gib(nvml, gpu)),
        "recovery_action": ask(
            "recovery_action",
            lambda: _field(nvml, gpu, nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
        ),
    }


def _limit_c(nvml: Any, gpu: Any, name: str) -> int:
    threshold = getattr(nvml, f"NVML_TEMPERATURE_THRESHOLD_{name}")
    return int(nvml.nvmlDeviceGetTemperatureThreshold(gpu, threshold))


def _event_reasons(nvml: Any, gpu: Any) -> int:
    """Drivers before R535 know it by its former name only."""
    try:
        return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))


def _sram(nvml: Any, gpu: Any) -> bool:
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    nvml.nvmlDeviceGetSramEccErrorStatus(gpu, ctypes.byref(status))
    return bool(status.bThresholdExceeded)


def _field(nvml: Any, gpu: Any, field: int) -> int:
    value = nvml.nvmlDeviceGetFieldValues(gpu, [field])[0]
    if value.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(value.nvmlReturn)
    return int(getattr(value.value, VALUE_OF_TYPE[value.valueType]))


def _memory_used_gib(nvml: Any, gpu: Any) -> float:
    return float(nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2).used) / 2**30


def _fabric(nvml: Any, gpu: Any) -> tuple[int, int]:
    info = nvml.c_nvmlGpuFabricInfo_v2_t()
    nvml.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(info))
    return int(info.state), int(info.status)


def _nvlinks(nvml: Any, gpu: Any) -> tuple[bool, ...]:
    """Links are numbered from 0; the first that NVML refuses is one more than there are."""
    links: list[bool] = []
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        try:
            links.append(bool(nvml.nvmlDeviceGetNvLinkState(gpu, link)))
        except nvml.NVMLError as error:
            if not links or error.value == nvml.NVML_ERROR_GPU_IS_LOST:
                raise
            break
    return tuple(links)


def _recoveries(nvml: Any, gpu: Any, num_links: int) -> int | None:
    """None without links."""
    kind = nvml.NVML_NVLINK_ERROR_DL_RECOVERY
    counts = [
        int(nvml.nvmlDeviceGetNvLinkErrorCounter(gpu, link, kind)) for link in range(num_links)
    ]
    return sum(counts) if counts else None
