"""Judging GPUs: pure functions from readings and thresholds to findings.

Fatal is what no new job would survive and no job that runs should trust: a GPU that is gone, memory
that lost data, a fault that only a reset or hands can mend.
"""

from collections.abc import Sequence

from components.preflight.readings import NO_DRIVER, GpuReading
from components.preflight.report import Finding, Status
from components.preflight.thresholds import GpuLimits, Sku, names_device

HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER_BRAKE = 0x08, 0x20, 0x40, 0x80
"""Of nvmlClocksEventReasons. HW_SLOWDOWN alone also shows while clocks change."""
NO_RUNTIME = "is NVIDIA's runtime the node's default, or its device plugin set to CDI?"
FABRIC_STATES = ("has none", "not started", "in progress", "completed")
FABRIC_COMPLETED = 3
RECOVERY_ACTIONS = (
    "nothing",
    "a reset of the GPU",
    "a restart of the node",
    "a drain of its peers",
    "a drain and a reset",
    "a recovery of the IMEX domain",
    "a reset of its bus",
    "a restart of the system",
)


def check_gpu_count(
    gpus: Sequence[GpuReading], fault: str | None, expected: int | None, on_node: int | None = None,
    may_share: bool = True,
) -> Finding:  # fmt: skip
    """Against what the pod asked for, else against what Kubernetes counts on the node: where they are
    shared (`may_share`) that is a multiple of them. None: nobody said how many there should be.
    """
    seen = len(gpus)
    if expected is None:
        return _of_node(seen, fault, on_node or 0, may_share)
    if seen == expected:
        return Finding("gpu_count", "ok", f"{seen} of {expected} GPUs", value=seen, limit=expected)
    is_bare = fault == NO_DRIVER  # of this container: others on the node may compute well
    why = f" ({fault}{f': {NO_RUNTIME}' if is_bare else ''})" if fault else ""
    message = f"{seen} GPUs visible, {expected} asked for{why}"
    fatal = seen < expected and not is_bare
    return Finding("gpu_count", "fail", message, fatal=fatal, value=seen, limit=expected)


def _of_node(seen: int, fault: str | None, on_node: int, may_share: bool) -> Finding:
    """Without the driver's library here it cannot be told whether the node has its GPUs."""
    if not seen:
        why = fault or "NVML shows none"
        status: Status = "skipped" if fault in (None, NO_DRIVER) else "fail"
        if on_node:
            why += f", Kubernetes counts {on_node} on this node"
            status = "inconclusive" if fault == NO_DRIVER else "fail"
        return Finding("gpu_count", status, f"no GPU: {why}", value=0, limit=on_node or None)
    if seen < on_node and (on_node % seen or not may_share):
        message = f"{seen} GPUs visible, Kubernetes counts {on_node} on this node"
        return Finding("gpu_count", "fail", message, value=seen, limit=on_node)
    return Finding("gpu_count", "ok", f"{seen} GPUs", value=seen)


def check_gpu_kind(gpus: Sequence[GpuReading], sku: Sku, expected: str | None) -> Finding:
    """All of one kind, and of the expected one: a key of skus.yaml or a part of NVML's name."""
    kinds = sorted({gpu.name for gpu in gpus if gpu.lost is None})
    shown = ", ".join(kinds) or "unknown"
    if len(kinds) > 1:
        return Finding("gpu_kind", "fail", f"GPUs of several kinds: {shown}", value=shown)
    if expected and kinds and expected != sku.name and not names_device(expected, kinds[0]):
        message = f"the GPUs are {shown}, expected {expected}"
        return Finding("gpu_kind", "fail", message, value=shown, limit=expected)
    return Finding("gpu_kind", "ok", f"{shown}, judged as {sku.name}", value=shown, limit=expected)


def check_gpu(gpu: GpuReading, limits: GpuLimits, alone: bool) -> list[Finding]:
    """All findings of one GPU. `alone`: no other is visible, so nothing here uses its links."""
    if gpu.lost is not None:
        message = f"{_at(gpu)}: does not answer ({gpu.lost})"
        return [Finding("gpu_lost", "fail", message, fatal=True, device=gpu.index)]
    return [
        Finding("gpu_lost", "ok", f"{_at(gpu)}: answers", device=gpu.index),
        check_ecc(gpu, limits.ecc),
        check_row_remap(gpu),
        check_recovery_action(gpu),
        check_temperature(gpu, limits.temperature_margin_c),
        check_clocks(gpu),
        check_power_limit(gpu),
        check_pcie(gpu),
        check_nvlink(gpu, limits.nvlinks, alone),
        check_fabric(gpu),
    ]


def check_gpu_in_use(gpu: GpuReading, most_gib: float | None) -> Finding:
    """Before a stage that has the GPU for itself: what is left there is a process that nobody ended.

    Measured beside it the GPU would look slow, as if it were broken.
    """
    used = gpu.memory_used_gib
    if used is None:
        return _skipped("gpu_in_use", gpu, "memory_used_gib")
    message = f"{_at(gpu)}: {used:.1f} GiB in use before the stage began"
    status: Status = "ok"
    if most_gib is not None and used > most_gib:
        status = "fail"
        message += f", allowed {most_gib:g}: another process runs there (`nvidia-smi` names it)"
    return Finding("gpu_in_use", status, message, False, gpu.index, round(used, 2), most_gib, "GiB")


def check_ecc(gpu: GpuReading, required: bool) -> Finding:
    """Uncorrectable errors since the last reset, the lasting count of SRAM, and the mode itself."""
    if gpu.sram_threshold_exceeded:
        message = f"{_at(gpu)}: uncorrectable SRAM errors beyond NVIDIA's limit: replace it"
        return Finding("ecc", "fail", message, fatal=True, device=gpu.index)
    if gpu.ecc_enabled is False:
        message = f"{_at(gpu)}: error correction is off"
        return Finding("ecc", "fail" if required else "ok", message, device=gpu.index)
    if gpu.ecc_uncorrected is None:
        return _skipped("ecc", gpu, "ecc_uncorrected")
    count = gpu.ecc_uncorrected
    message = f"{_at(gpu)}: {count} uncorrectable memory errors since its last reset, allowed 0"
    sick = count > 0
    return Finding("ecc", "fail" if sick else "ok", message, sick, gpu.index, count, 0, "errors")


def check_row_remap(gpu: GpuReading) -> Finding:
    """A damaged row of memory that waits for a reset to be replaced, or could not be."""
    if gpu.remap_failed is None or gpu.remap_pending is None:
        return _skipped("row_remap", gpu, "rows_remapped")
    rows = gpu.rows_remapped
    if gpu.remap_failed:
        message = f"{_at(gpu)}: a damaged memory row could not be replaced ({rows} were)"
        return Finding("row_remap", "fail", message, True, gpu.index, rows, unit="rows")
    if gpu.remap_pending:
        message = f"{_at(gpu)}: a damaged memory row waits for a reset of the GPU ({rows} so far)"
        return Finding("row_remap", "fail", message, False, gpu.index, rows, unit="rows")
    message = f"{_at(gpu)}: {rows} memory rows replaced, none pending"
    return Finding("row_remap", "ok", message, False, gpu.index, rows, unit="rows")


def check_recovery_action(gpu: GpuReading) -> Finding:
    """What the driver itself asks for; the same as Xid 154, and readable inside a pod."""
    action = gpu.recovery_action
    if action is None:
        return _skipped("recovery_action", gpu, "recovery_action")
    asked = RECOVERY_ACTIONS[action] if action < len(RECOVERY_ACTIONS) else f"action {action}"
    message = f"{_at(gpu)}: the driver asks for {asked}"
    sick = action != 0
    return Finding(
        "recovery_action", "fail" if sick else "ok", message, sick, gpu.index, asked, "nothing"
    )


def check_temperature(gpu: GpuReading, margin_c: int) -> Finding:
    """Core against where the hardware slows it down, memory against its own maximum."""
    if gpu.temperature_c is None:
        return _skipped("temperature", gpu, "temperature_c")
    if gpu.slowdown_c is None:
        return _skipped("temperature", gpu, "slowdown_c")
    core, limit = gpu.temperature_c, gpu.slowdown_c
    memory, memory_limit = gpu.memory_temperature_c, gpu.memory_max_c
    message = f"{_at(gpu)}: {core} °C, slows down at {limit} °C"
    if memory is not None and memory_limit is not None and memory >= memory_limit:
        message = f"{_at(gpu)}: memory at {memory} °C, allowed {memory_limit} °C"
        return Finding("temperature", "fail", message, False, gpu.index, memory, memory_limit, "°C")
    status: Status = "fail" if core >= limit else "warn" if core >= limit - margin_c else "ok"
    return Finding("temperature", status, message, False, gpu.index, core, limit, "°C")


def check_clocks(gpu: GpuReading) -> Finding:
    """Why the clocks are held down, now. A power cap is how a GPU at work looks: no fault."""
    reasons = gpu.clock_event_reasons
    if reasons is None:
        return _skipped("clocks", gpu, "clock_event_reasons")
    hard = [
        name
        for bit, name in ((HW_THERMAL, "it is too hot"), (HW_POWER_BRAKE, "power ran short"))
        if reasons & bit
    ]
    soft = [
        name
        for bit, name in ((SW_THERMAL, "it is nearly too hot"), (HW_SLOWDOWN, "a slowdown"))
        if reasons & bit
    ]
    status: Status = "fail" if hard else "warn" if soft else "ok"
    held = ", ".join(hard or soft)
    state = f"held down because of: {held}" if held else "not held down"
    message = f"{_at(gpu)}: {gpu.sm_clock_mhz} of {gpu.sm_clock_max_mhz} MHz, {state}"
    value, limit = gpu.sm_clock_mhz, gpu.sm_clock_max_mhz
    return Finding("clocks", status, message, False, gpu.index, value, limit, "MHz")


def check_power_limit(gpu: GpuReading) -> Finding:
    """Somebody capped it below its design: no fault, but slower than its like."""
    limit, default = gpu.power_limit_w, gpu.power_default_w
    if limit is None or default is None:
        return _skipped("power_limit", gpu, "power_default_w" if limit else "power_limit_w")
    message = f"{_at(gpu)}: limited to {limit:.0f} W of {default:.0f} W"
    status: Status = "warn" if limit < default else "ok"
    return Finding("power_limit", status, message, False, gpu.index, limit, default, "W")


def check_pcie(gpu: GpuReading) -> Finding:
    """Lanes. (The generation falls when a GPU idles, so it tells nothing here.)"""
    width, most = gpu.pcie_width, gpu.pcie_width_max
    if width is None or most is None:
        return _skipped("pcie", gpu, "pcie_width")
    message = f"{_at(gpu)}: {width} of {most} PCIe lanes"
    status: Status = "warn" if width < most else "ok"
    return Finding("pcie", status, message, False, gpu.index, width, most, "lanes")


def check_nvlink(gpu: GpuReading, expected: int | None, alone: bool) -> Finding:
    """Active links against the SKU's number, else against all that the GPU has."""
    links = gpu.nvlinks_active
    if links is None:
        if expected is None:
            return _skipped("nvlink", gpu, "nvlinks_active")
        links = ()
    active, wanted = sum(links), expected or len(links)
    message = f"{_at(gpu)}: {active} of {wanted} NVLinks active"
    if gpu.nvlink_recoveries:
        message += f", {gpu.nvlink_recoveries} times recovered"
    short: Status = "warn" if alone or expected is None else "fail"
    status: Status = short if active < wanted else "ok"
    return Finding("nvlink", status, message, False, gpu.index, active, wanted, "links")


def check_fabric(gpu: GpuReading) -> Finding:
    """Whether an NVSwitch system has taken the GPU in; without that CUDA does not start."""
    state = gpu.fabric_state
    if state is None:
        return _skipped("fabric", gpu, "fabric_state")
    if state == 0:
        return Finding("fabric", "skipped", f"{_at(gpu)}: no NVSwitch fabric", device=gpu.index)
    told = FABRIC_STATES[state] if state < len(FABRIC_STATES) else f"state {state}"
    message = f"{_at(gpu)}: registration with the NVSwitch fabric {told}"
    if state == FABRIC_COMPLETED and gpu.fabric_status:
        message += f", but failed with NVML's error {gpu.fabric_status}"
    sick = state != FABRIC_COMPLETED or bool(gpu.fabric_status)
    return Finding("fabric", "fail" if sick else "ok", message, False, gpu.index, told, "completed")


def _at(gpu: GpuReading) -> str:
    return f"GPU {gpu.index} ({gpu.pci or 'unknown place'})"


def _skipped(check: str, gpu: GpuReading, reading: str) -> Finding:
    why = (gpu.missing or {}).get(reading, "not told")
    return Finding(check, "skipped", f"{_at(gpu)}: {why}", device=gpu.index)
