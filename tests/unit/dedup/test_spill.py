"""Columns on disk."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.dedup.spill import SpilledColumn, SpilledSets

NUMBERS = st.lists(st.integers(0, 2**64 - 1), max_size=5)


@given(st.lists(NUMBERS, max_size=4))
def test_what_was_appended_comes_back_in_order(tmp_path_factory, parts: list[list[int]]) -> None:
    column = SpilledColumn(tmp_path_factory.mktemp("spill") / "column")
    for part in parts:
        column.append(np.array(part, np.uint64))
    assert column.mapped().tolist() == [value for part in parts for value in part]


def test_sets_know_where_each_document_begins(tmp_path: Path) -> None:
    sets = SpilledSets(tmp_path / "sets")
    sets.append(np.array([1, 2, 3], np.uint64), np.array([2, 0, 1]))
    sets.append(np.array([4], np.uint64)[::1], np.array([1]))
    values, first = sets.mapped()
    assert values.tolist() == [1, 2, 3, 4]
    assert first.tolist() == [0, 2, 2, 3, 4]


def test_a_slice_of_a_matrix_is_written_in_its_own_order(tmp_path: Path) -> None:
    column = SpilledColumn(tmp_path / "column")
    column.append(np.arange(6, dtype=np.uint64).reshape(3, 2)[:, 1])
    assert column.mapped().tolist() == [1, 3, 5]
