"""How likely a node is to fail soon, from its trends and its past; each term can be explained.

score = 1 - product(1 - term) over terms in [0, weight]: the chance that at least one of several
independent dangers comes true, if each term were its chance. The weights are not calibrated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

from pydantic import ConfigDict, Field

from tasks.nodes.instants import Instant
from tasks.nodes.policy import RiskWeights
from tasks.nodes.record import Risk

DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Sample:
    """What the agent has read since the sample before, over all devices; None where nothing could be."""

    __pydantic_config__ = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    at: Instant
    corrected_errors: Annotated[int, Field(ge=0)] | None = None
    """A counter's sum, which falls when the counter is reset."""
    row_remaps: Annotated[int, Field(ge=0)] | None = None
    """The same."""
    temperature_c: float | None = None
    """Of the device that came nearest to its limit, at that time."""
    temperature_limit_c: float | None = None
    """Where that device slows down."""
    throttled_fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the looks, in how many a device was held down by heat or power brake."""


def assess(
    samples: Sequence[Sample],
    quarantines_at: Iterable[int],
    now: int,
    weights: RiskWeights,
    was_at_risk: bool,
) -> Risk:
    """The score with its terms, rounded to 2 decimals: noise below that is not worth a write."""
    past = weights.past_quarantines
    terms = {
        "corrected_errors": _corrected_errors(samples, weights),
        "row_remaps": _row_remaps(samples, weights),
        "temperature": _temperature(samples, weights),
        "throttling": _throttling(samples, weights),
        "past_quarantines": joined(
            past.weight * 0.5 ** (max(0, now - at) / past.half_life_s) for at in quarantines_at
        ),
    }
    score = round(joined(terms.values()), 2)
    threshold = weights.at_risk_until if was_at_risk else weights.at_risk_from
    shown = ((name, round(term, 2)) for name, term in terms.items())
    return Risk(score, score >= threshold, tuple((name, term) for name, term in shown if term))


def joined(terms: Iterable[float]) -> float:
    return 1 - prod(1 - term for term in terms)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares, in units of y per unit of x; the points' x differ."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def growth(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A counter's growth since the first point, through resets: after one it counts from 0 again."""
    grown, total = [], 0
    for index, (at, value) in enumerate(points):
        if index:
            before = points[index - 1][1]
            total += value - before if value >= before else value
        grown.append((at, total))
    return grown


def _is_trend(points: Sequence[tuple[int, float]], weights: RiskWeights) -> bool:
    return len(points) >= weights.min_samples and points[-1][0] - points[0][0] >= weights.min_span_s


def _corrected_errors(samples: Sequence[Sample], weights: RiskWeights) -> float:
    read = [(s.at, s.corrected_errors) for s in samples if s.corrected_errors is not None]
    if not _is_trend(read, weights):
        return 0.0
    per_day = slope(growth(read)) * DAY_S
    return weights.corrected_errors.weight * _ramp(
        per_day / weights.corrected_errors.full_at_per_day
    )


def _row_remaps(samples: Sequence[Sample], weights: RiskWeights) -> float:
    read = [(s.at, s.row_remaps) for s in samples if s.row_remaps is not None]
    if not read:
        return 0.0
    return weights.row_remaps.weight * _ramp(growth(read)[-1][1] / weights.row_remaps.full_at)


def _temperature(samples: Sequence[Sample], weights: RiskWeights) -> float:
    """Over the distance to the limit, for the nearest device may be another one each time."""
    given = weights.temperature
    read = [
        (s.at, s.temperature_limit_c - s.temperature_c)
        for s in samples
        if s.temperature_c is not None and s.temperature_limit_c is not None
    ]
    if not _is_trend(read, weights):
        return 0.0
    mean_at = sum(at for at, _ in read) / len(read)
    mean_left_c = sum(left_c for _, left_c in read) / len(read)
    left_c = mean_left_c + slope(read) * (read[-1][0] + given.ahead_s - mean_at)
    return given.weight * _ramp((given.margin_c - left_c) / given.margin_c)


def _throttling(samples: Sequence[Sample], weights: RiskWeights) -> float:
    read = [s.throttled_fraction for s in samples if s.throttled_fraction is not None]
    if len(read) < weights.min_samples:
        return 0.0
    return weights.throttling.weight * _ramp(
        sum(read) / len(read) / weights.throttling.full_at_fraction
    )


def _ramp(fraction: float) -> float:
    return min(1.0, max(0.0, fraction))
