from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.model.packed import IGNORED
from components.train.packing import batch_of, micro_batches, pack, rows_at

LENGTHS = st.lists(st.integers(0, 70), max_size=40)


def pieces_of(lengths: list[int]) -> list[list[int]]:
    """Pieces whose tokens are all different, so that each can be told from where it came."""
    ends = np.cumsum([0, *lengths])
    return [list(range(begin, end)) for begin, end in pairwise(ends.tolist())]


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, row_length=st.integers(1, 32), seed=st.integers(0, 5))
def test_every_token_is_a_target_once_with_the_one_before_as_its_input(
    lengths: list[int], row_length: int, seed: int
) -> None:
    pieces = pieces_of(lengths)
    packing = pack(lengths, row_length, seed)
    batch = batch_of(packing, range(len(packing.rows)), pieces.__getitem__)
    counted = batch["targets"] != IGNORED
    pairs = zip(
        batch["input_ids"][counted].tolist(), batch["targets"][counted].tolist(), strict=True
    )
    want = [(piece[i], piece[i + 1]) for piece in pieces for i in range(len(piece) - 1)]
    assert sorted(pairs) == want
    assert packing.num_cut == sum(length - 1 > row_length for length in lengths)


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, row_length=st.integers(2, 32))
def test_positions_restart_where_a_piece_or_the_empty_end_begins(
    lengths: list[int], row_length: int
) -> None:
    packing = pack(lengths, row_length, seed=0)
    batch = batch_of(packing, range(len(packing.rows)), pieces_of(lengths).__getitem__)
    for row, positions in zip(packing.rows, batch["position_ids"].tolist(), strict=True):
        sizes = [segment.length for segment in row]
        sizes.append(row_length - sum(sizes))
        assert positions == [position for size in sizes for position in range(size)]


def test_rows_are_full_when_there_are_short_pieces_to_fill_them() -> None:
    lengths = np.random.default_rng(0).integers(2, 100, size=2000)
    assert pack(lengths, 128, seed=0).fill_fraction > 0.99


def test_the_fullest_row_that_still_fits_is_taken() -> None:
    # Positions: 6, 5, 3, 2 into rows of 8. Best fit: 6+2 and 5+3; first fit would agree with worst
    # fit on 5+2 only if 2 went to the emptier row.
    packing = pack([7, 6, 4, 3], 8, seed=0)
    sizes = sorted(sorted(segment.length for segment in row) for row in packing.rows)
    assert sizes == [[2, 6], [3, 5]]


def test_what_does_not_count_is_ignored() -> None:
    packing = pack([4], 5, seed=0)
    counts: Any = [[False, False, True, True]]
    batch = batch_of(packing, [0], [[5, 6, 7, 8]].__getitem__, counts.__getitem__)
    assert batch["targets"].tolist() == [[IGNORED, 7, 8, IGNORED, IGNORED]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(1, 30), per_batch=st.integers(1, 40))
def test_an_epoch_takes_every_row_once_in_a_new_order_each_time(
    num_rows: int, per_batch: int
) -> None:
    at = rows_at(num_rows, per_batch, seed=3)
    num_steps = -(-2 * num_rows // per_batch)
    taken = [row for step in range(num_steps) for row in at(step).tolist()]
    for epoch in range(2):
        assert sorted(taken[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))
    assert at(1).tolist() == rows_at(num_rows, per_batch, seed=3)(1).tolist()


def test_a_batch_falls_into_micro_batches() -> None:
    parts = micro_batches(np.arange(6), 2)
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, row_length=st.integers(1, 32), seed=st.integers(0, 5))
def test_the_mean_of_attended_positions_is_what_a_mask_counts(
    lengths: list[int], row_length: int, seed: int
) -> None:
    packing = pack(lengths, row_length, seed)
    pieces = pieces_of(lengths)
    positions = batch_of(packing, range(len(packing.rows)), pieces.__getitem__)["position_ids"]
    document = (positions == 0).cumsum(dim=1)
    same = document[:, :, None] == document[:, None, :]
    num_pairs = same.tril().sum().item()
    assert packing.mean_attended * max(positions.numel(), 1) == pytest.approx(num_pairs)
