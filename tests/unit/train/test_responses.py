import pytest
import torch

from components.model.rows import ResponseRow
from components.train.responses import packed_batch

ROWS = [ResponseRow(list(range(10, 10 + n)), n // 2) for n in (5, 3, 8, 2, 6)]


def test_every_answer_lies_whole_in_one_row_where_the_batch_says() -> None:
    batch = packed_batch(ROWS, 9)
    flat, positions = batch["input_ids"].flatten(), batch["position_ids"].flatten()
    for row, first, last in zip(ROWS, batch["first"], batch["last"], strict=True):
        begin = int(last) - len(row.ids) + 1
        assert flat[begin : last + 1].tolist() == row.ids
        assert positions[begin : last + 1].tolist() == list(range(len(row.ids)))
        assert int(first) == begin + row.start
        assert begin // 9 == int(last) // 9
    assert batch["input_ids"].shape == (3, 9)  # 24 tokens, less than padding to the longest: 5 x 8


def test_an_answer_as_long_as_a_row_fits() -> None:
    batch = packed_batch(ROWS[2:3], 8)
    torch.testing.assert_close(batch["last"], torch.tensor([7]))


def test_an_answer_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="8 tokens does not fit into 7"):
        packed_batch(ROWS, 7)
