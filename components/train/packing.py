"""Pieces of different length into rows of one length, whole where they can be.

Best-fit decreasing (arXiv 2404.10830): each piece goes into the fullest row that still holds it, so
few pieces are cut and little of a row stays empty. A piece of n tokens takes n - 1 positions: each
position holds a token and has the next one as its target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.model.packed import IGNORED

Ints = npt.NDArray[np.int64]

WINDOW_PIECES = 1 << 20
"""Pieces are packed so many at a time: memory and time stay bounded for any corpus."""


@dataclass(frozen=True)
class Segment:
    """`length` positions of piece `piece`, from position `begin`."""

    piece: int
    begin: int
    length: int


@dataclass(frozen=True)
class Packing:
    rows: list[list[Segment]]
    row_length: int
    num_cut: int
    """Pieces longer than a row, which were cut."""

    @property
    def fill_fraction(self) -> float:
        """Share of all positions that hold a token."""
        used = sum(segment.length for row in self.rows for segment in row)
        return used / max(len(self.rows) * self.row_length, 1)

    @property
    def mean_attended(self) -> float:
        """Positions that one attends to on average, itself included.

        The j-th position of a segment attends to j, so n of them to n (n + 1) / 2. A row's empty rest
        is computed like a segment, and counted.
        """
        num_pairs = 0
        for row in self.rows:
            lengths = [segment.length for segment in row]
            lengths.append(self.row_length - sum(lengths))
            num_pairs += sum(n * (n + 1) // 2 for n in lengths)
        return num_pairs / max(len(self.rows) * self.row_length, 1)


def pack(num_tokens: Sequence[int] | Ints, row_length: int, seed: int) -> Packing:
    """Rows for pieces of so many tokens; pieces of fewer than two tokens teach nothing.

    Pieces longer than a row are cut into full rows and a rest; the rest is packed like the others.
    The order of the rows is shuffled by `seed`.
    """
    generator = np.random.default_rng(seed)
    lengths = np.asarray(num_tokens, dtype=np.int64) - 1
    order = generator.permutation(len(lengths))
    rows: list[list[Segment]] = []
    for begin in range(0, len(order), WINDOW_PIECES):
        window = order[begin : begin + WINDOW_PIECES]
        rows += _pack_window(window, lengths[window], row_length)
    shuffled = [rows[index] for index in generator.permutation(len(rows))]
    return Packing(shuffled, row_length, num_cut=int((lengths > row_length).sum()))


def _pack_window(pieces: Ints, lengths: Ints, row_length: int) -> list[list[Segment]]:
    segments = [
        Segment(int(piece), begin, min(row_length, int(length) - begin))
        for piece, length in zip(pieces, lengths, strict=True)
        for begin in range(0, int(length), row_length)
    ]
    segments.sort(key=lambda segment: -segment.length)  # stable: equal ones stay shuffled
    rows: list[list[Segment]] = []
    with_space: list[list[int]] = [[] for _ in range(row_length + 1)]
    spaces = 0  # bit s is set where a row with s free positions exists
    for segment in segments:
        fitting = spaces >> segment.length
        if fitting:
            space = segment.length + (fitting & -fitting).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                spaces &= ~(1 << space)
        else:
            row, space = len(rows), row_length
            rows.append([])
        rows[row].append(segment)
        left = space - segment.length
        if left:
            with_space[left].append(row)
            spaces |= 1 << left
    return rows


Tokens = Callable[[int], npt.ArrayLike]
"""Index of a piece -> its token ids."""
Counts = Callable[[int], npt.ArrayLike]
"""Index of a piece -> for each of its tokens, whether predicting it counts."""


def batch_of(
    packing: Packing, rows: Sequence[int] | Ints, tokens: Tokens, counts: Counts | None = None
) -> dict[str, Tensor]:
    """`input_ids`, `position_ids` and `targets` of some rows, each (rows, row_length), int64.

    Positions restart at 0 with each piece, which is what keeps pieces apart (see
    `components.model.packed`). Targets that do not count, and empty space, are IGNORED.
    """
    shape = (len(rows), packing.row_length)
    input_ids = np.zeros(shape, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORED, dtype=np.int64)
    for out, row in enumerate(rows):
        at = 0
        for segment in packing.rows[row]:
            begin, end, to = segment.begin, segment.begin + segment.length, at + segment.length
            ids = np.asarray(tokens(segment.piece))
            input_ids[out, at:to] = ids[begin:end]
            position_ids[out, at:to] = np.arange(segment.length)
            targets[out, at:to] = ids[begin + 1 : end + 1]
            if counts is not None:
                mask = np.asarray(counts(segment.piece), dtype=bool)[begin + 1 : end + 1]
                targets[out, at:to][~mask] = IGNORED
            at = to
        position_ids[out, at:] = np.arange(packing.row_length - at)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(position_ids),
        "targets": torch.from_numpy(targets),
    }


def rows_at(num_rows: int, rows_per_batch: int, seed: int) -> Callable[[int], Ints]:
    """Optimiser step -> the rows of its batch: every row once an epoch, in a new order each."""

    @lru_cache(maxsize=2)
    def order(epoch: int) -> Ints:
        return np.random.default_rng([seed, epoch]).permutation(num_rows)

    def at(step: int) -> Ints:
        places = np.arange(step * rows_per_batch, (step + 1) * rows_per_batch)
        return np.array([order(place // num_rows)[place % num_rows] for place in places.tolist()])

    return at


def micro_batches(rows: Ints, rows_per_micro_batch: int) -> list[Ints]:
    """The rows of a batch, so many at a time."""
    return [
        rows[begin : begin + rows_per_micro_batch]
        for begin in range(0, len(rows), rows_per_micro_batch)
    ]
