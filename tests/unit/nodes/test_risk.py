"""The risk score against closed forms on constructed series."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.nodes.risk import Sample, assess, growth, joined, slope
from tests.unit.nodes.builders import DAY, HOUR, NOW, POLICY

WEIGHTS = POLICY.risk
HOURS = range(24)


def at(hour: int) -> int:
    return NOW - 24 * HOUR + hour * HOUR


def score(samples: list[Sample], quarantines_at: tuple[int, ...] = (), was: bool = False) -> float:
    return assess(samples, quarantines_at, NOW, WEIGHTS, was).score


def term(samples: list[Sample], name: str) -> float:
    return dict(assess(samples, (), NOW, WEIGHTS, False).terms).get(name, 0.0)


def test_a_node_without_samples_or_a_past_has_no_risk() -> None:
    assert assess([], (), NOW, WEIGHTS, False).terms == ()
    assert score([]) == 0.0


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_the_slope_is_that_of_least_squares(values: list[float]) -> None:
    points = [(float(at(hour)), value) for hour, value in enumerate(values)]
    expected = np.polyfit([x - points[0][0] for x, _ in points], values, 1)[0]
    assert slope(points) == pytest.approx(expected, abs=1e-6)


def test_a_counter_grows_on_through_resets() -> None:
    read = [(0, 5), (1, 7), (2, 7), (3, 2), (4, 3), (5, 0)]
    assert growth(read) == [(0, 0), (1, 2), (2, 2), (3, 4), (4, 5), (5, 5)]


@pytest.mark.parametrize(("per_day", "expected"), [(0, 0.0), (25, 0.15), (50, 0.3), (400, 0.6)])
def test_rising_corrected_errors_weigh_by_their_number_a_day(per_day: int, expected: float) -> None:
    samples = [Sample(at(hour), corrected_errors=1000 + per_day * hour // 24) for hour in HOURS]
    assert term(samples, "corrected_errors") == pytest.approx(expected, abs=0.02)


def test_a_reset_of_the_counter_hides_no_trend() -> None:
    counts = [10 * hour % 120 for hour in HOURS]
    samples = [Sample(at(hour), corrected_errors=count) for hour, count in enumerate(counts)]
    assert term(samples, "corrected_errors") == WEIGHTS.corrected_errors.weight


def test_a_trend_over_too_few_samples_or_too_short_a_time_counts_for_nothing() -> None:
    few = [Sample(at(6 * hour), corrected_errors=9999 * hour) for hour in range(4)]
    short = [Sample(NOW - 60 * minute, corrected_errors=9999 - minute) for minute in range(30)]
    assert score(few) == score(short[::-1]) == 0.0


@pytest.mark.parametrize(
    ("now_c", "c_per_day", "expected"),
    [
        (60, 0, 0.0),  # far away, and stays there
        (80, 0, 0.25),  # 5 of the 10 degrees of margin are used up
        (60, 20, 0.25),  # 80 degrees a day from now
        (60, 40, 0.5),  # beyond the limit a day from now
        (80, -20, 0.0),  # it cools
    ],
)
def test_a_temperature_counts_by_where_its_trend_leads(
    now_c: float, c_per_day: float, expected: float
) -> None:
    last = max(HOURS)
    samples = [
        Sample(
            at(hour),
            temperature_c=now_c - c_per_day * (last - hour) / 24,
            temperature_limit_c=85.0,
        )
        for hour in HOURS
    ]
    assert term(samples, "temperature") == pytest.approx(expected, abs=0.005)


def test_a_hotter_device_with_a_higher_limit_is_no_trend() -> None:
    samples = [
        Sample(at(hour), temperature_c=60.0 + 15 * (hour % 2), temperature_limit_c=85.0 + 15 * (hour % 2))
        for hour in HOURS
    ]  # fmt: skip
    assert term(samples, "temperature") == 0.0


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0.0), (0.1, 0.25), (0.9, 0.5)])
def test_throttling_weighs_by_its_share_of_the_time(fraction: float, expected: float) -> None:
    samples = [Sample(at(hour), throttled_fraction=fraction) for hour in HOURS]
    assert term(samples, "throttling") == expected


def test_remapped_rows_weigh_by_how_many_are_new() -> None:
    samples = [Sample(at(0), row_remaps=6), Sample(at(9), row_remaps=8)]
    assert term(samples, "row_remaps") == pytest.approx(0.3)
    assert term(samples[:1], "row_remaps") == 0.0


def test_past_quarantines_halve_with_time_and_join_as_independent_dangers() -> None:
    half_life_s = WEIGHTS.past_quarantines.half_life_s
    assert score([], (NOW,)) == 0.4
    assert score([], (NOW - half_life_s,)) == 0.2
    assert score([], (NOW, NOW - half_life_s)) == round(1 - 0.6 * 0.8, 2)


def test_the_score_joins_the_terms_as_independent_dangers() -> None:
    hot = [
        Sample(at(hour), temperature_c=80.0, temperature_limit_c=85.0, throttled_fraction=0.1)
        for hour in HOURS
    ]
    assert score(hot, (NOW,)) == round(1 - 0.75 * 0.75 * 0.6, 2)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_a_joined_score_lies_between_its_greatest_term_and_one(terms: list[float]) -> None:
    assert max(terms, default=0.0) - 1e-12 <= joined(terms) <= 1


def test_a_node_between_the_thresholds_stays_what_it_was() -> None:
    calm = replace_thresholds(0.6, 0.3)
    risky = [assess([], (NOW,), NOW, calm, was).at_risk for was in (False, True)]
    assert risky == [False, True]
    assert not assess([], (NOW - 9 * DAY * 7,), NOW, calm, True).at_risk


def replace_thresholds(start: float, end: float) -> object:
    return WEIGHTS.model_copy(update={"at_risk_from": start, "at_risk_until": end})
