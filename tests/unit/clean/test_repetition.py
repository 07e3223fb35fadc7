"""Gopher's repetition numbers, against datatrove's own functions on the same words."""

import re

import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from hypothesis import example, given
from hypothesis import strategies as st

from components.clean.lines import normalise_lines
from components.clean.repetition import repetition_scores
from components.words import split_words
from tests.builders import plain_words

LINES = st.lists(
    st.lists(
        st.sampled_from(["a", "ab", "b", "aab", "to", "字", "7", "it's", "-"]), max_size=9
    ).map(" ".join),
    max_size=12,
)
TEXT = LINES.map("\n".join) | LINES.map("\n\n".join) | st.text(max_size=80)


def datatrove_scores(text: str) -> dict[str, float]:
    paragraphs = find_duplicates(re.split(r"\n{2,}", text.strip()))
    lines = find_duplicates(re.split(r"\n+", text))
    num_paragraphs, num_lines = len(re.split(r"\n{2,}", text)), len(re.split(r"\n+", text))
    words, length = plain_words(text), max(1, len(text))
    tops = {
        n: find_top_duplicate(get_n_grams(words, n)) if len(words) >= n else 0 for n in (2, 3, 4)
    }
    return {
        "duplicate_paragraph_fraction": paragraphs[0] / num_paragraphs,
        "duplicate_paragraph_char_fraction": paragraphs[1] / length,
        "duplicate_line_fraction": lines[0] / num_lines,
        "duplicate_line_char_fraction": lines[1] / length,
        **{f"top_{n}_gram_char_fraction": top / length for n, top in tops.items()},
        **{
            f"duplicate_{n}_gram_char_fraction": find_all_duplicate(words, n) / length
            for n in range(5, 11)
        },
    }


@given(st.lists(TEXT, min_size=1, max_size=4))
@example(["a b a b b a b a"])  # two top 2-grams as frequent: the first to occur counts
@example(["a a a a a a a a a a a a a a a a a a a a a"])  # repetitions overlap
@example(["ab c ab c ab c a bc a bc a bc"])  # other words, the same letters
@example(["a b c d e f", "a b c d e f"])  # said twice, but by two documents
def test_every_number_equals_datatroves(texts: list[str]) -> None:
    texts = [normalise_lines(text) for text in texts]
    scores = repetition_scores(texts, split_words(texts))
    for position, text in enumerate(texts):
        assert {name: values[position] for name, values in scores.items()} == datatrove_scores(text)


def test_a_text_said_three_times_repeats_two_thirds_of_itself() -> None:
    sentence = "one two three four five six seven eight nine ten"
    text = "\n".join([sentence] * 3)
    scores = repetition_scores([text], split_words([text]))
    assert scores["duplicate_line_fraction"][0] == pytest.approx(2 / 3)
    assert scores["duplicate_line_char_fraction"][0] == 2 * len(sentence) / len(text)
    assert scores["duplicate_10_gram_char_fraction"][0] == 2 * 39 / len(text)
