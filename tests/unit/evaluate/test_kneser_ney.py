from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluate.kneser_ney import KneserNey, discounts, fit, joined

V = 6
START = 1


def documents(*texts: str) -> list[list[int]]:
    """Each digit is a token; every document begins with START."""
    return [[START, *map(int, text)] for text in texts]


def written_out(texts: list[list[int]], order: int) -> dict[tuple[int, ...], float]:
    """P(token | up to order - 1 tokens before), as Chen and Goodman define it, n-gram by n-gram."""
    raw: Counter[tuple[int, ...]] = Counter()
    for text in texts:
        for end in range(1, len(text) + 1):
            for length in range(1, min(order, end) + 1):
                raw[tuple(text[end - length : end])] += 1
    followers: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for gram in raw:
        followers[gram[1:]].add(gram[0])

    def count(gram: tuple[int, ...]) -> int:
        return raw[gram] if len(gram) == order or gram[0] == START else len(followers[gram])

    discount_of = {
        length: discounts(np.array([count(gram) for gram in raw if len(gram) == length]))
        for length in range(1, order + 1)
    }

    @cache
    def probability(context: tuple[int, ...], token: int) -> float:
        below = probability(context[1:], token) if context else 1 / V
        grams = [gram for gram in raw if gram[:-1] == context]
        total = sum(count(gram) for gram in grams)
        if not total:
            return below
        taken = {
            gram: min(discount_of[len(gram)][min(count(gram), 3)], count(gram)) for gram in grams
        }
        own = (*context, token)
        seen = (count(own) - taken[own]) / total if own in taken else 0.0
        return seen + sum(taken.values()) / total * below

    return {
        (*context, token): probability(context, token)
        for context in {gram[:-1] for gram in raw} | {(0, 5), (5,), (START, 0)}
        for token in range(V)
        if len(context) < order
    }


TEXTS = documents("23232352", "2342", "3352", "22222345", "4", "2523255432")


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bits_are_those_of_the_definition_written_out(order: int) -> None:
    probability = written_out(TEXTS, order)
    unseen = documents("2324", "545", "0023")
    expected = []
    for text in unseen:
        bits = 0.0
        for end in range(1, len(text)):
            context = tuple(text[max(0, end - order + 1) : end])
            while (*context, text[end]) not in probability:
                context = context[1:]
            bits -= np.log2(probability[(*context, text[end])])
        expected.append(bits)
    found = fit(TEXTS, V, order).document_bits(unseen)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(
    texts=st.lists(st.lists(st.integers(0, V - 1), max_size=12), min_size=1, max_size=5),
    context=st.lists(st.integers(0, V - 1), max_size=4),
    order=st.integers(1, 5),
)
def test_the_next_tokens_probabilities_sum_to_one(
    texts: list[list[int]], context: list[int], order: int
) -> None:
    model = fit([[START, *text] for text in texts], V, order)
    before = [START, *context]
    whole = np.array([model.document_bits([[*before, token]])[0] for token in range(V)])
    common = model.document_bits([before])[0]
    assert np.exp2(common - whole).sum() == pytest.approx(1.0, abs=1e-9)


def test_discounts_of_a_known_table() -> None:
    # n1 = 4, n2 = 2, n3 = 1, n4 = 1: Y = 4 / 8, D1 = 1 - 2Y/2, D2 = 2 - 3Y/2, D3+ = 3 - 4Y.
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])
    assert discounts(counts).tolist() == [0.0, 0.5, 1.25, 1.0]


def test_no_ngram_crosses_documents() -> None:
    tokens, age = joined([[1, 2, 3], [1, 4]])
    assert tokens.tolist() == [1, 2, 3, 1, 4]
    assert age.tolist() == [0, 1, 2, 0, 1]
    apart = fit(documents("2", "3", "2", "3", "2"), V, 2)
    together = fit(documents("2", "3", "2", "3", "23"), V, 2)
    assert isinstance(apart, KneserNey)
    assert apart.document_bits(documents("23"))[0] > together.document_bits(documents("23"))[0]


def test_more_of_the_same_text_makes_it_cheaper() -> None:
    text = documents("2345234523452345")
    bits = [fit(text * times, V, 4).document_bits(text)[0] for times in (1, 4, 16)]
    assert bits[0] > bits[1] > bits[2]
