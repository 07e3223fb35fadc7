"""By what an answer is found again, and who goes for it."""

from pathlib import Path

import numpy as np
import pytest

from components.dedup.answers import (
    STOCK_CANDIDATE,
    Digests,
    Part,
    answer_digests,
    conversation_answers,
    digest,
    response_answers,
)
from components.dedup.followers import HELD_OUT_ANSWER, REPEATED, STAYS, judge_followers
from components.ingest.candidates import KINDS
from components.shards import RowGroup

LONG = "The name of the bucket. It is unique."


def test_an_answer_is_known_by_its_words_whatever_their_case_and_white_space() -> None:
    assert answer_digests("?", (LONG,), 20) == [digest(LONG.lower())]
    assert answer_digests("!", (f" {LONG.upper()}\n".replace(" ", "  "),), 20) == [
        digest(LONG.lower())
    ]


def test_a_short_answer_is_known_together_with_its_prompt_alone() -> None:
    assert answer_digests("Is it?", ("Yes.",), 20) == [digest("is it?", "yes.")]
    assert answer_digests("Is it?", ("Yes.",), 4) == [digest("yes.")]


def test_every_answer_of_a_conversation_counts_by_its_whole_and_its_first_sentence() -> None:
    said = [
        {"role": "system", "content": LONG},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": LONG},
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": "No."},
    ]
    assert conversation_answers(said, 20) == [
        digest(LONG.lower()),
        digest("the name of the bucket."),
        digest(LONG.lower(), "no."),
    ]
    assert conversation_answers(said, None) == []


def test_a_phrase_that_every_prompt_is_given_gives_none_away() -> None:
    row = {"prompt": "?", "response": LONG, "candidate": "right"}
    assert response_answers(row, 20) == [digest(LONG.lower())]
    assert response_answers(row | {"candidate": STOCK_CANDIDATE}, 20) == []
    assert STOCK_CANDIDATE in KINDS


def rows_of(*rows: tuple[int, list[int]]) -> Digests:
    """Rows of a user's own: the digest of the whole, and of its answers."""
    return Digests(
        documents=np.array([b""] * len(rows), "S32"),
        whole=np.array([whole for whole, _ in rows], np.uint64),
        answers=np.array([answer for _, answers in rows for answer in answers], np.uint64),
        num_answers=np.array([len(answers) for _, answers in rows], np.int64),
    )


def part(split: str, table: str, found: Digests) -> Part:
    return Part(split, table, RowGroup(Path(), 0, len(found.whole)))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_prompt_goes_as_a_whole_wherever_its_rows_are_cut_apart(tmp_path: Path, at: int) -> None:
    test = rows_of((1, [10, 11]))
    train = [(5, [90]), (6, []), (6, [11]), (6, [92])]
    cut = [rows_of(*train[:at]), rows_of(*train[at:])]
    digests = [test, *cut]
    parts = [part("test", "conversations", test)] + [
        part("train", "rated_responses", found) for found in cut
    ]
    reason = judge_followers(parts, digests, np.zeros(0, "S32"), tmp_path)
    assert reason.tolist() == [STAYS, STAYS] + [HELD_OUT_ANSWER] * 3


def test_what_left_the_held_out_split_holds_nothing_out_and_equal_rows_stay_once(
    tmp_path: Path,
) -> None:
    digests = [
        rows_of((1, [10])),
        rows_of((2, [10, 20])),  # goes, for test has its answer; so nothing is held out by it
        rows_of((3, [20]), (4, [30]), (4, [30]), (5, [10])),
    ]
    parts = [
        part(split, "conversations", found)
        for split, found in zip(("test", "valid", "train"), digests, strict=True)
    ]
    reason = judge_followers(parts, digests, np.zeros(0, "S32"), tmp_path)
    assert reason.tolist() == [
        STAYS,
        HELD_OUT_ANSWER,
        *(STAYS, STAYS, REPEATED, HELD_OUT_ANSWER),
    ]
