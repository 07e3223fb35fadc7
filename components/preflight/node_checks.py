"""Judging the node around its GPUs: pure functions from readings and thresholds to findings."""

from collections.abc import Mapping, Sequence

from components.preflight.kernel_log import XidEvent, xids
from components.preflight.readings import (
    ClockReading,
    DiskReading,
    GpuReading,
    KernelLogReading,
    PortReading,
    Readings,
)
from components.preflight.report import ON_SHARED_VOLUME, Finding, Status
from components.preflight.thresholds import NodeLimits, Xid

UNTIL_RESTART = ("restart_node", "replace")
"""Actions that neither time nor another repair does away with."""
CLOCKS_APART_S = 5.0
"""How much the clocks of two nodes may differ: rather count an old Xid once more than miss a new one."""
ASKS_FOR = {
    "ignore": "nothing",
    "restart_app": "the program's restart",
    "reset_gpu": "a reset of the GPU",
    "restart_node": "a restart of the node",
    "replace": "hands",
    "workflow": "a person's look",
}


def check_node(
    readings: Readings,
    limits: NodeLimits,
    table: Mapping[int, Xid] | None,
    repaired_at: float | None = None,
) -> list[Finding]:
    """All cheap findings that concern no single GPU. `table` None: no Xid to look up. `repaired_at`:
    Unix seconds, None if no repair is known.
    """
    counted_s = limits.xid_hours * 3600
    if repaired_at is not None:
        counted_s = min(counted_s, readings.at - repaired_at + CLOCKS_APART_S)
    return [
        *check_xids(readings.kernel_log, table or {}, counted_s, readings.gpus),
        check_infiniband(readings.ports, limits.infiniband_ports, limits.infiniband_gb_per_s_min),
        *(check_disk_space(disk, limits) for disk in readings.disks),
        check_clock(readings.clock, limits.clock_error_ms_max),
        check_memory_pressure(readings.memory_pressure_percent, limits.memory_pressure_percent_max),
        check_host_ecc(readings.host_ecc_uncorrected),
    ]


def check_xids(
    log: KernelLogReading, table: Mapping[int, Xid], counted_s: float, gpus: Sequence[GpuReading]
) -> list[Finding]:
    """One finding for each GPU and number that still counts, else one that says there is none.

    An Xid that a reset or a restarted program mends counts for `counted_s`; one that only a restart
    of the node mends stays until then, which also empties the log.
    """
    if log.fault is not None:
        return [Finding("xid", "skipped", f"{log.fault}; the node agent reads it")]
    groups: dict[tuple[str, int], list[XidEvent]] = {}
    for event in xids(log.lines):
        if _counts(event, table.get(event.number), log.uptime_s, counted_s):
            groups.setdefault((event.pci, event.number), []).append(event)
    found = [
        _xid_finding(events, table.get(number), log.uptime_s, gpus)
        for (_, number), events in groups.items()
    ]
    return found or [Finding("xid", "ok", "no Xid in the kernel log that still counts", value=0)]


def _counts(event: XidEvent, xid: Xid | None, uptime_s: float, counted_s: float) -> bool:
    if event.at_s is None or (xid is not None and xid.action in UNTIL_RESTART):
        return True
    return uptime_s - event.at_s <= counted_s


def _xid_finding(
    events: Sequence[XidEvent], xid: Xid | None, uptime_s: float, gpus: Sequence[GpuReading]
) -> Finding:
    last = events[-1]
    device = next((gpu.index for gpu in gpus if gpu.pci == last.pci), None)
    place = f"GPU {device} ({last.pci})" if device is not None else f"the GPU at {last.pci}"
    ago = "" if last.at_s is None else f", last {_span(uptime_s - last.at_s)} ago"
    times = "once" if len(events) == 1 else f"{len(events)} times"
    message = f"{place}: Xid {last.number} {times}{ago}: "
    if xid is None:
        message += "not in xid.yaml, see NVIDIA's catalogue"
        return Finding("xid", "warn", message, False, device, last.number)
    message += f"{xid.meaning}; asks for {ASKS_FOR[xid.action]}"
    status: Status = "fail" if xid.fatal else "ok" if xid.action == "ignore" else "warn"
    return Finding("xid", status, message, xid.fatal, device, last.number)


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def check_infiniband(
    ports: Sequence[PortReading], expected: int | None, gb_per_s_min: float | None
) -> Finding:
    """Ports that are active, and fast enough where a rate is asked for."""
    if not ports and expected is None:
        return Finding("infiniband", "skipped", "no InfiniBand adapter here")
    bad = [_port_fault(port, gb_per_s_min) for port in ports]
    faults = [fault for fault in bad if fault]
    good, wanted = len(ports) - len(faults), expected if expected is not None else len(ports)
    message = f"{good} of {wanted} InfiniBand ports active"
    if faults:
        message += f" ({'; '.join(faults)})"
    status: Status = "ok"
    if good < wanted:
        status = "fail" if expected is not None else "warn"
    return Finding("infiniband", status, message, False, None, good, wanted, "ports")


def _port_fault(port: PortReading, gb_per_s_min: float | None) -> str | None:
    if port.state != "ACTIVE":
        return f"{port.name} is {port.state}, {port.physical_state}"
    rate = port.rate_gb_per_s
    if gb_per_s_min is not None and rate is not None and rate < gb_per_s_min:
        return f"{port.name} runs at {rate:g} Gb/s, allowed {gb_per_s_min:g}"
    return None


def check_disk_space(disk: DiskReading, limits: NodeLimits) -> Finding:
    """A full disk of the node's own is its fault; a full shared volume is nobody's here.

    A large shared volume that is nearly full still has room, so a fraction only warns of it.
    """
    if disk.fault is not None or disk.used_fraction is None or disk.free_gib is None:
        return Finding("disk_space", "fail", f"{disk.path}: {disk.fault or 'not told'}")
    full: Status = "inconclusive" if disk.shared else "fail"
    nearly: Status = "warn" if disk.shared else "fail"
    whose = f"; {ON_SHARED_VOLUME}" if disk.shared else ""
    most = limits.disk_used_fraction_max
    inodes = disk.inodes_used_fraction
    if disk.free_gib < limits.disk_free_gib_min:
        message = f"{disk.path}: {disk.free_gib:.2f} GiB free, needs {limits.disk_free_gib_min:g}"
        least = limits.disk_free_gib_min
        return Finding(
            "disk_space", full, message + whose, False, None, disk.free_gib, least, "GiB"
        )
    if inodes is not None and inodes > most:
        status = full if inodes >= 1 else nearly
        message = f"{disk.path}: {inodes:.0%} of its inodes used, allowed {most:.0%}{whose}"
        return Finding("disk_space", status, message, False, None, 100 * inodes, 100 * most, "%")
    used = disk.used_fraction
    status = nearly if used > most else "ok"
    message = f"{disk.path}: {used:.0%} used, allowed {most:.0%}, {disk.free_gib:.0f} GiB free"
    message += whose if status != "ok" else ""
    return Finding("disk_space", status, message, False, None, 100 * used, 100 * most, "%")


def check_clock(clock: ClockReading, error_ms_max: float) -> Finding:
    """Whether anything sets the clock, and how well it says it does."""
    if clock.synchronised is None:
        return Finding("clock", "skipped", clock.fault or "not told")
    if not clock.synchronised:
        message = "nothing synchronises this node's clock (chrony, ntpd or systemd-timesyncd would)"
        return Finding("clock", "warn", message)
    error = clock.error_ms or 0.0
    message = f"synchronised to about {error:.1f} ms, allowed {error_ms_max:g} ms"
    status: Status = "warn" if error > error_ms_max else "ok"
    return Finding("clock", status, message, False, None, error, error_ms_max, "ms")


def check_memory_pressure(percent: float | None, most: float) -> Finding:
    """Thrashing passes, so it is a warning."""
    if percent is None:
        return Finding("memory_pressure", "skipped", "the kernel does not measure pressure (PSI)")
    message = f"all tasks waited for memory {percent:g}% of the last minute, allowed {most:g}%"
    status: Status = "warn" if percent > most else "ok"
    return Finding("memory_pressure", status, message, False, None, percent, most, "%")


def check_host_ecc(count: int | None) -> Finding:
    """The host's own memory."""
    if count is None:
        return Finding("host_ecc", "skipped", "the kernel counts no errors of the host's memory")
    message = f"{count} uncorrectable errors in the host's memory since it started, allowed 0"
    sick = count > 0
    return Finding("host_ecc", "fail" if sick else "ok", message, sick, None, count, 0, "errors")
