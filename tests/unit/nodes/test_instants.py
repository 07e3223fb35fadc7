"""Instants and times as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.nodes.instants import parsed, rfc3339, span


@given(st.integers(0, 2**33))
def test_an_instant_comes_back_from_its_text(at: int) -> None:
    assert parsed(rfc3339(at)) == at


def test_fractions_are_cut_off_and_zones_are_heeded() -> None:
    assert (
        parsed("2027-01-15T08:00:00.999Z") == parsed("2027-01-15T10:00:00+02:00") == 1_800_000_000
    )


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        parsed("2027-01-15T08:00:00")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (90, "90 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (86400, "24 h"),
     (604800, "7 days"), (100_000, "100000 s")],
)  # fmt: skip
def test_a_time_is_told_in_the_largest_unit_that_fits(seconds: int, text: str) -> None:
    assert span(seconds) == text
