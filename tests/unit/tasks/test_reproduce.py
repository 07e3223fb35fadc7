import math
from pathlib import Path
from typing import Any

import pytest

from tasks.reproduce import Reproduction, largest_move

FIGURES = {"a.x": 1.0, "a_se.x": 0.5, "b.y": 2.0, "b_se.y": 0.1, "count": 7}


def test_moves_are_in_errors_and_only_of_figures_that_have_one() -> None:
    name, moved_se = largest_move(FIGURES, FIGURES | {"a.x": 1.5, "b.y": 2.15, "count": 99}) or (
        "",
        0,
    )
    assert name == "b.y"
    assert moved_se == pytest.approx(1.5)


def test_a_figure_without_spread_may_not_move_at_all() -> None:
    exact = {"a.x": 1.0, "a_se.x": 0.0}
    assert largest_move(exact, exact) == ("a.x", 0.0)
    assert largest_move(exact, exact | {"a.x": 1.1}) == ("a.x", math.inf)


@pytest.mark.parametrize("moved", [{"b.y": math.nan}, {"b.y": None}])
def test_a_figure_that_is_no_number_any_more_is_no_small_move(moved: dict[str, Any]) -> None:
    after = {name: value for name, value in (FIGURES | moved).items() if value is not None}
    assert largest_move(FIGURES, after) == ("b.y", math.inf)


def reproduction(how: str, moved_se: float) -> Reproduction:
    rows = [("clean", "1", "1", "taken"), ("sft", "2", "3", how)]
    return Reproduction("4", Path("."), rows, ("a.x", moved_se), max_se=1.0)


@pytest.mark.parametrize(
    ("how", "moved_se", "verdict"),
    [
        ("equal", 0.0, "bit-equal"),
        (
            "different",
            0.25,
            "within 1 standard errors: different first in sft, a.x moved most, by 0.25",
        ),
        ("different", 2.5, "different, first in sft: a.x moved by 2.50 se"),
    ],
)
def test_the_verdict_says_how_close_and_where_first(
    how: str, moved_se: float, verdict: str
) -> None:
    assert reproduction(how, moved_se).verdict == verdict
