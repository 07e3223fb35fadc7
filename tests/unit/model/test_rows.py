from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import chat
from components.model.rows import PAD_ID, batches_by_length, encode_responses, padded_batch
from components.tokens import IM_END_ID
from tests.small_models import small_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_tokenizer()


def test_a_row_is_the_conversation_up_to_the_answers_end(tokenizer: Any) -> None:
    prompts, responses = ["What?", "What?", "<|im_end|> why"], ["That.", "", "a <|im_end|> b"]
    for row, prompt, response in zip(
        encode_responses(tokenizer, prompts, responses), prompts, responses, strict=True
    ):
        ids, is_response = chat.encode(
            tokenizer,
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}],
        )
        end = len(is_response) - is_response[::-1].index(True)
        assert row.ids == ids[:end]
        assert row.start == is_response.index(True)
        assert row.ids[-1] == IM_END_ID
        assert row.num_response_tokens == sum(is_response)


def test_a_padded_batch_says_where_each_answer_begins_and_ends(tokenizer: Any) -> None:
    rows = encode_responses(tokenizer, ["a", "bb"], ["long answer here", "x"])
    batch = padded_batch(rows)
    flat = batch["input_ids"].flatten()
    for row, first, last in zip(rows, batch["first"], batch["last"], strict=True):
        assert flat[first : last + 1].tolist() == row.ids[row.start :]
    shorter = min(rows, key=lambda row: len(row.ids))
    padding = batch["input_ids"][rows.index(shorter), len(shorter.ids) :]
    assert set(padding.tolist()) == {PAD_ID}
    assert (batch["position_ids"].diff(dim=1) == 1).all()


@given(
    lengths=st.lists(st.integers(1, 50), max_size=40),
    max_tokens=st.integers(1, 200),
)
def test_batches_hold_every_row_once_within_the_limit(lengths: list[int], max_tokens: int) -> None:
    batches = batches_by_length(lengths, max_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= max_tokens
