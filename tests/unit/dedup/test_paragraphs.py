"""Repeated lines, against CCNet's rule written out."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dedup import paragraphs
from components.dedup.paragraphs import normalise, paragraph_hashes, repeated, without

TEXTS = st.lists(
    st.lists(
        st.sampled_from(["Sign in", "sign in!", "Page 1", "page 2", "", "a", "- b"]), max_size=5
    )
    .map("\n".join)
    .map(str.strip),
    max_size=5,
)


def dedup(texts: list[str], min_occurrences: int, min_chars: int) -> list[str]:
    hashes, sizes = paragraph_hashes(texts, min_chars)
    goes = repeated(hashes, np.ones(len(hashes), bool), min_occurrences)
    first = np.concatenate(([0], np.cumsum(sizes)))
    return [
        without(text, goes[start:end], min_chars)
        for text, start, end in zip(texts, first, first[1:], strict=False)
    ]


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line]


@given(TEXTS)
def test_at_two_occurrences_of_one_character_it_is_ccnet(texts: list[str]) -> None:
    seen: set[bytes] = set()
    for before, after in zip(texts, dedup(texts, 2, 1), strict=True):
        expected = []
        for line in lines(before):
            digest = hashlib.sha1(normalise(line).encode()).digest()[:8]
            if digest not in seen:
                seen.add(digest)
                expected.append(line)
        assert lines(after) == expected


@given(TEXTS, st.integers(2, 4), st.integers(1, 7))
def test_it_does_not_matter_how_many_hashes_are_taken_at_once(
    texts: list[str], min_occurrences: int, min_chars: int
) -> None:
    whole = dedup(texts, min_occurrences, min_chars)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paragraphs, "VALUES_AT_ONCE", 2)
        assert dedup(texts, min_occurrences, min_chars) == whole


def test_only_long_lines_that_occur_often_go_and_the_first_stays() -> None:
    texts = ["Name\nThe token of the next page.\nmine"] * 3 + ["Twice is not often.\nName"] * 2
    assert dedup(texts, 3, 10) == [
        "Name\nThe token of the next page.\nmine",
        "Name\nmine",
        "Name\nmine",
        "Twice is not often.\nName",
        "Twice is not often.\nName",
    ]


def test_lines_of_removed_documents_do_not_count() -> None:
    hashes, _ = paragraph_hashes(["same line", "same line", "same line"], 1)
    counts = np.array([False, True, True])
    assert repeated(hashes, counts, 2).tolist() == [False, False, True]
    assert repeated(hashes, counts, 3).tolist() == [False, False, False]


def test_the_gap_of_a_removed_paragraph_is_closed() -> None:
    assert without("one\n\ntwo\n\nthree", np.array([False, True, False]), 1) == "one\n\nthree"


def test_case_digits_and_signs_make_no_difference() -> None:
    assert normalise("  Page 12: “Queues” — Part II! ") == normalise("page 99 queues  part ii")
