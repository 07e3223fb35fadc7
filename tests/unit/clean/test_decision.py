"""One decision from scores, and bounds from a sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.clean.decision import decide, fit_thresholds, rules_by_language

SCORES = {
    "num_words": np.array([10.0, 50.0, 100.0, 100.1]),
    "num_stop_words": np.array([5.0, 0.0, 5.0, 5.0]),
}
RULES = {"num_words": (50.0, 100.0), "num_stop_words": (2.0, None)}


def reasons(languages: list[str], keep: list[str], rules_of=None, faults=("", "", "", "")):
    return decide(SCORES, languages, faults, keep_languages=keep, rules_of=rules_of or {"": RULES})


def test_the_first_rule_that_fails_is_the_reason_and_a_bound_itself_passes() -> None:
    assert reasons(["en"] * 4, []) == ["num_words_low", "num_stop_words_low", "", "num_words_high"]


def test_a_fault_comes_before_the_language_and_the_language_before_the_rules() -> None:
    found = reasons(["de", "de", "en", "fr"], ["en"], faults=("empty", "", "too_long", ""))
    assert found == ["empty", "language", "too_long", "language"]


def test_english_stop_words_are_asked_of_english_only() -> None:
    assert reasons(["en", "de", "en", "en"], [])[1] == ""


def test_a_language_may_differ_in_some_rules() -> None:
    rules_of = rules_by_language(RULES, {"zh": {"num_words": (5.0, None)}})
    found = reasons(["zh", "en", "en", "zh"], [], rules_of)
    assert found == ["", "num_stop_words_low", "", ""]
    assert rules_of["zh"] == {"num_words": (5.0, None), "num_stop_words": (2.0, None)}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 0.4), st.floats(0.6, 1))
def test_fitted_bounds_are_the_quantiles_and_open_sides_stay_open(
    values: list[float], q_low: float, q_high: float
) -> None:
    scores = {"num_words": np.array(values), "num_stop_words": np.array(values)}
    fitted = fit_thresholds(scores, RULES, q_low, q_high)
    low, high = fitted["num_words"]
    assert low == pytest.approx(np.percentile(values, 100 * q_low))
    assert high == pytest.approx(np.percentile(values, 100 * q_high))
    assert fitted["num_stop_words"] == (low, None)


def test_fitting_the_outermost_quantiles_removes_nothing() -> None:
    fitted = fit_thresholds(SCORES, RULES, 0.0, 1.0)
    assert decide(SCORES, ["en"] * 4, [""] * 4, keep_languages=[], rules_of={"": fitted}) == [
        "",
        "",
        "",
        "",
    ]
