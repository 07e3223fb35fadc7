"""n-gram sets as hashes, against sets of tuples of words."""

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.dedup.shingles import Shingles, jaccard, join, num_shared, shingle

TEXT = st.lists(
    st.sampled_from(["a", "B", "ab", "7", "42", "-", "é", ", ", "a.b", "字"]), max_size=12
).map(" ".join)


def plain(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"字|[^\W字]+", re.sub(r"[0-9]", "0", text.lower()))
    if not words:
        return set()
    return {tuple(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}


def sets(shingles: Shingles) -> list[np.ndarray]:
    return [
        shingles.values[start:end]
        for start, end in zip(shingles.first[:-1], shingles.first[1:], strict=True)
    ]


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 5))
@example(["a b c d", "a b c d e", "", "- - -"], 5)
def test_sizes_and_similarities_are_those_of_sets_of_tuples(texts: list[str], n: int) -> None:
    hashed, tuples = sets(shingle(texts, n)), [plain(text, n) for text in texts]
    assert [len(values) for values in hashed] == [len(grams) for grams in tuples]
    for one, one_plain in zip(hashed, tuples, strict=True):
        assert (np.diff(one.astype(object)) > 0).all()
        for other, other_plain in zip(hashed, tuples, strict=True):
            assert num_shared(one, other) == len(one_plain & other_plain)
            union = len(one_plain | other_plain)
            assert jaccard(one, other) == (len(one_plain & other_plain) / union if union else 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Version 1.2 of the API", "version 9.7 of the api"),
        ("one, two; three!", "One Two Three"),
        ("on 2024-01-31\n\nat noon", "on 1999-12-24 at noon"),
    ],
)
def test_case_digits_and_signs_make_no_difference(one: str, other: str) -> None:
    hashed = sets(shingle([one, other], 5))
    assert hashed[0].tolist() == hashed[1].tolist()


def test_the_order_of_words_makes_a_difference() -> None:
    hashed = sets(shingle(["the dog bites the man today", "the man bites the dog today"], 5))
    assert jaccard(hashed[0], hashed[1]) == 0


@given(st.lists(st.lists(TEXT, max_size=3), max_size=4))
def test_parts_join_to_the_whole(parts: list[list[str]]) -> None:
    joined = join(shingle(part, 2) for part in parts)
    whole = shingle([text for part in parts for text in part], 2)
    assert joined.values.tolist() == whole.values.tolist()
    assert joined.first.tolist() == whole.first.tolist()
