"""From the agent's readings to samples for the trends."""

from collections.abc import Iterable, Sequence

from components.preflight.gpu_checks import HW_POWER_BRAKE, HW_THERMAL, SW_THERMAL
from components.preflight.readings import GpuReading, Readings
from tasks.nodes.risk import Sample

HELD_DOWN = SW_THERMAL | HW_THERMAL | HW_POWER_BRAKE


def sample_of(readings: Readings, corrected_errors: int | None) -> Sample:
    """One look's."""
    gpus = [gpu for gpu in readings.gpus if gpu.lost is None]
    heats = [heat for gpu in gpus for heat in _heats(gpu)]
    nearest = min(heats, key=lambda heat: heat[1] - heat[0], default=(None, None))
    reasons = [gpu.clock_event_reasons for gpu in gpus if gpu.clock_event_reasons is not None]
    remaps = [gpu.rows_remapped for gpu in gpus if gpu.rows_remapped is not None]
    return Sample(
        int(readings.at),
        corrected_errors,
        sum(remaps) if remaps else None,
        nearest[0],
        nearest[1],
        float(any(reason & HELD_DOWN for reason in reasons)) if reasons else None,
    )


def merged(looks: Sequence[Sample]) -> Sample:
    """One for several looks, of which there is at least one: the newest counters, the worst heat."""
    heats = [
        (look.temperature_c, look.temperature_limit_c)
        for look in looks
        if look.temperature_c is not None and look.temperature_limit_c is not None
    ]
    nearest = min(heats, key=lambda heat: heat[1] - heat[0], default=(None, None))
    throttled = [look.throttled_fraction for look in looks if look.throttled_fraction is not None]
    return Sample(
        looks[-1].at,
        looks[-1].corrected_errors,
        looks[-1].row_remaps,
        nearest[0],
        nearest[1],
        round(sum(throttled) / len(throttled), 3) if throttled else None,
    )


def _heats(gpu: GpuReading) -> Iterable[tuple[float, float]]:
    """Temperatures with their limits: the chip's and the memory's."""
    pairs = (
        (gpu.temperature_c, gpu.slowdown_c),
        (gpu.memory_temperature_c, gpu.memory_max_c),
    )
    return [
        (float(now), float(most)) for now, most in pairs if now is not None and most is not None
    ]
