import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.measure.bits import document_bits, spread_documents, windows
from tests.small_models import small_model


def documents(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(9, 300, length, dtype=np.uint16) for length in lengths]


def test_bits_are_those_of_a_plain_pass_over_each_document() -> None:
    model = small_model()
    texts = documents(5, 40, 2, 33)
    expected = []
    for ids in texts:
        row = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.no_grad():
            loss = model(row, labels=row).loss.item()
        expected.append(loss * (len(ids) - 1) / np.log(2))
    found = document_bits(model, texts, context=64, stride=32, max_tokens_per_batch=80)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_long_document_is_predicted_once_with_the_context_that_was_promised() -> None:
    model = small_model()
    (ids,) = documents(50)
    row = torch.from_numpy(ids.astype(np.int64))
    nats = 0.0
    with torch.no_grad():
        for target in range(1, 50):
            # The first row predicts 20 tokens; each later one 5, from at most 20 before them.
            row_number = max(0, -(-(target - 20) // 5))
            seen = row[5 * row_number : target]
            nats -= torch.log_softmax(model(seen[None]).logits[0, -1], dim=-1)[row[target]].item()
    found = document_bits(model, [ids], context=20, stride=5)
    assert found[0] == pytest.approx(nats / np.log(2), rel=1e-5)


@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    context=st.integers(2, 30),
    data=st.data(),
)
def test_every_token_after_the_first_is_asked_for_exactly_once(
    lengths: list[int], context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    asked = [np.zeros(length, dtype=int) for length in lengths]
    for row in windows(lengths, context, stride):
        assert row.end - row.begin <= context
        asked[row.document][row.begin + row.seen + 1 : row.end + 1] += 1
        if row.begin:
            assert row.seen >= context - stride
    for length, counts in zip(lengths, asked, strict=True):
        assert counts.tolist() == [0] + [1] * (length - 1)


def test_documents_are_spread_over_the_split_and_keep_within_the_limit() -> None:
    num_tokens = np.array([10] * 100)
    assert spread_documents(num_tokens, 1000) == list(range(100))
    assert spread_documents(num_tokens, 250) == list(range(0, 100, 4))
    assert spread_documents(np.array([5000, 10]), 1000) == [0]
