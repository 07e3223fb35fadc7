"""Overlap with held-out documents, against sets."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dedup.decontamination import build_index, load_index, overlaps
from components.dedup.shingles import Shingles

GRAMS = st.sets(st.integers(0, 12), max_size=8)


def made(sets: list[set[int]]) -> Shingles:
    flat = [value for values in sets for value in sorted(values)]
    return Shingles(np.array(flat, np.uint64), np.cumsum([0] + [len(values) for values in sets]))


@given(
    st.lists(GRAMS, max_size=5),
    st.lists(st.tuples(GRAMS, st.booleans()), max_size=5),
    st.integers(1, 4),
)
def test_the_largest_overlap_coefficient_is_found(
    training: list[set[int]], held_out: list[tuple[set[int], bool]], most: int
) -> None:
    kept = [grams if is_kept else set() for grams, is_kept in held_out]
    common = {value for value in range(13) if sum(value in grams for grams in kept) > most}
    is_kept = np.array([kept for _, kept in held_out], bool)
    index = build_index(made([grams for grams, _ in held_out]), is_kept, most)
    overlap, owner = overlaps(made(training), index)
    for grams, found, which in zip(training, overlap.tolist(), owner.tolist(), strict=True):
        coefficients = [
            len((grams & other) - common) / max(1, min(len(grams), len(other))) for other in kept
        ]
        best = max(coefficients, default=0)
        assert found == pytest.approx(best)
        assert which == (coefficients.index(best) if best else -1)


def test_a_short_held_out_text_inside_a_long_one_overlaps_completely() -> None:
    index = build_index(made([{1, 2, 3}]), np.array([True]), 10)
    overlap, owner = overlaps(made([set(range(1000))]), index)
    assert (overlap.tolist(), owner.tolist()) == ([1.0], [0])


def test_an_index_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    index = build_index(made([{1, 2}, {2, 3, 4}]), np.array([True, True]), 10)
    index.save(tmp_path)
    again = load_index(tmp_path)
    for name in ("grams", "first", "documents", "sizes"):
        assert getattr(again, name).tolist() == getattr(index, name).tolist()
