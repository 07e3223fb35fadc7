"""Text metrics whose value is known by counting."""

import pytest

from components.clean.lines import Correction
from components.clean.quality import (
    correction_scores,
    fineweb_scores,
    gopher_scores,
    num_sentences,
)
from components.words import split_words


def gopher(text: str) -> dict[str, float]:
    return {name: values[0] for name, values in gopher_scores([text], split_words([text])).items()}


def test_words_of_a_sentence_are_counted_without_its_signs() -> None:
    scores = gopher("The queue's 12 messages, to be read: done.")
    assert scores["num_words"] == 8  # The queue's 12 messages to be read done
    assert scores["mean_word_length_chars"] == pytest.approx((3 + 7 + 2 + 8 + 2 + 2 + 4 + 4) / 8)
    assert scores["alphabetic_word_fraction"] == pytest.approx(7 / 11)
    assert scores["num_stop_words"] == 2  # to, be; "The" is not "the"


def test_bullets_and_ellipses_are_counted_by_line() -> None:
    scores = gopher("- one\n  • two\nthree...\nfour…")
    assert scores["bullet_line_fraction"] == 0.5
    assert scores["ellipsis_line_fraction"] == 0.5


def test_a_text_without_a_word_scores_0_and_does_not_fail() -> None:
    assert set(gopher("").values()) == {0.0}
    assert gopher("---")["num_words"] == 0


def test_text_in_the_wrong_encoding_is_garbled() -> None:
    wrong = "Größe über Straße".encode("cp1252").decode("utf-8", "replace")
    assert gopher(wrong)["garbled_char_fraction"] == pytest.approx(4 / 17)
    assert gopher("Größe\tüber\nStraße 字")["garbled_char_fraction"] == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One.", 1),
        ("One. Two! Three?", 3),
        ("One without an end", 1),
        ("Version 1.2.3 is one. And a rest", 2),
        ('He said "stop." Then he left.', 2),
        ("A heading\nA sentence.\n\nAnother.", 3),
        ("队列保存消息。直到读取！好吗？", 3),
        ("Wait... what?", 2),
    ],
)
def test_sentences_end_at_full_stops_and_lines(text: str, count: int) -> None:
    assert num_sentences(text) == count


def test_the_third_longest_line_is_0_without_three_lines() -> None:
    corrections = [Correction(text, 0, 0, 0, {}) for text in ("aaaa\nbbb", "aaaa\nbb\nc\nddd")]
    scores = correction_scores(["", ""], corrections)
    assert scores["third_longest_line_chars"].tolist() == [0, 2]


def test_removed_words_are_a_share_of_the_words_before() -> None:
    correction = Correction("two words", 1, 0, 0, {})
    scores = correction_scores(["gone\ntwo words"], [correction])
    assert scores["removed_word_fraction"].tolist() == [pytest.approx(1 / 3)]


def test_fineweb_counts_only_lines_that_are_not_blank() -> None:
    text = "short line\n\nthis line is quite a bit longer than thirty characters.\n\nshort line"
    scores = fineweb_scores([text], [16], short_line_chars=30)
    assert scores["terminal_line_fraction"][0] == pytest.approx(1 / 3)
    assert scores["short_line_fraction"][0] == pytest.approx(2 / 3)
    assert scores["repeated_line_char_fraction"][0] == 10 / (len(text) - 4)
    assert scores["newline_word_ratio"][0] == 4 / 16
