"""Answers packed into rows: a training batch of them with little padding.

Answers to one prompt differ in length by several times, so padding to the longest would waste a
third of the work.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.model.rows import PAD_ID, ResponseRow
from components.train.packing import batch_of, pack


def packed_batch(rows: Sequence[ResponseRow], row_length: int) -> dict[str, Tensor]:
    """A batch of answers as `components.model.rows` describes it, in the answers' order.

    Raises ValueError if an answer does not fit into a row.
    """
    longest = max(len(row.ids) for row in rows)
    if longest > row_length:
        raise ValueError(f"an answer of {longest} tokens does not fit into {row_length}")
    # One more than its tokens: `pack` leaves out the position of a piece's last token, but a reward
    # is read there.
    packing = pack([len(row.ids) + 1 for row in rows], row_length, seed=0)
    batch = batch_of(packing, range(len(packing.rows)), lambda piece: [*rows[piece].ids, PAD_ID])
    begin = torch.zeros(len(rows), dtype=torch.int64)
    for number, segments in enumerate(packing.rows):
        at = number * row_length
        for segment in segments:
            begin[segment.piece] = at
            at += segment.length
    return {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "first": begin + torch.tensor([row.start for row in rows]),
        "last": begin + torch.tensor([len(row.ids) - 1 for row in rows]),
    }
