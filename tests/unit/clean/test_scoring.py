"""The vector of scores: complete, and of each document alone."""

from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.clean.lines import correct_lines
from components.clean.params import METRICS
from components.clean.scoring import batches_of_chars, score_texts

CORRECT = partial(
    correct_lines,
    rules=("few_words", "citation"),
    min_words=2,
    max_word_chars=1000,
    max_upper_case_fraction=0.5,
    max_call_words=10,
)
TEXT = st.lists(st.sampled_from(["a", "b c", "of it.", "[1] x y", "", "字"]), max_size=8).map(
    "\n".join
)


def score(texts: list[str]):
    return score_texts(texts, CORRECT, language_max_chars=100, short_line_chars=30)


@settings(max_examples=40)
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_a_documents_scores_do_not_depend_on_its_company(texts: list[str]) -> None:
    together = score(texts)
    for position, text in enumerate(texts):
        alone = score([text])
        assert alone.texts[0] == together.texts[position]
        for metric in METRICS:
            assert alone.scores[metric][0] == together.scores[metric][position]


def test_every_metric_that_params_may_name_is_scored_and_no_other() -> None:
    scored = score(["A text.", ""])
    assert set(scored.scores) == set(METRICS)
    assert all(np.isfinite(values).all() for values in scored.scores.values())


def test_newlines_are_set_against_the_words_that_the_correction_left() -> None:
    scored = score(["one\nthe two of them\nand three more", "untouched is this\nand this too"])
    assert scored.texts[0] == "the two of them\nand three more"
    assert scored.scores["newline_word_ratio"].tolist() == [1 / 7, 1 / 6]


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 15))
def test_batches_hold_every_document_once_and_few_characters(lengths: list[int], most: int) -> None:
    batches = list(batches_of_chars(lengths, most))
    assert [i for rows in batches for i in range(rows.start, rows.stop)] == list(
        range(len(lengths))
    )
    assert all(sum(lengths[rows]) <= most or rows.stop - rows.start == 1 for rows in batches)
