"""Decision and reason of whole rule sets, against datatrove's filters on the same text.

The alphabet is that on which both agree what a sign is: datatrove lists signs one by one, we go by
what is a letter or digit, so for instance `•` alone is a word there and none here.
"""

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from components.clean.decision import KEPT, decide
from components.clean.lines import Correction, correct_lines, normalise_lines
from components.clean.quality import STOP_WORDS
from components.clean.scoring import score_texts
from tests.builders import PlainWords, plain_words

WORD = st.sampled_from(
    [
        *(*STOP_WORDS, "word", "a", "long" * 6, "x" * 1001, "é", "字", "it's"),
        *("7", "#", "...", "…", "-", ".", "{", "[12]", "[edit]"),
        *("javascript", "JavaScript", "cookie", "policy", "lorem", "ipsum"),
    ]
)
LINE = st.builds(
    lambda words, end: " ".join(words) + end,
    st.lists(WORD, max_size=10),
    st.sampled_from(["", ".", "!", "...", '"', "?", "。"]),
)
TEXT = st.one_of(
    st.lists(LINE, min_size=1, max_size=8).map("\n".join),
    st.tuples(LINE, st.integers(2, 30)).map(lambda both: "\n".join([both[0]] * both[1])),
    st.lists(LINE, min_size=1, max_size=4).map("\n\n".join),
)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])

REPETITION = {
    "duplicate_paragraph_fraction": (None, 0.3),
    "duplicate_paragraph_char_fraction": (None, 0.2),
    "duplicate_line_fraction": (None, 0.3),
    "duplicate_line_char_fraction": (None, 0.2),
    **{f"top_{n}_gram_char_fraction": (None, c) for n, c in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{
        f"duplicate_{n}_gram_char_fraction": (None, c)
        for n, c in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    },
}
REPETITION_REASONS = {
    "dup_para_frac": "duplicate_paragraph_fraction_high",
    "dup_para_char_frac": "duplicate_paragraph_char_fraction_high",
    "dup_line_frac": "duplicate_line_fraction_high",
    "dup_line_char_frac": "duplicate_line_char_fraction_high",
    **{f"top_{n}_gram": f"top_{n}_gram_char_fraction_high" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"duplicate_{n}_gram_char_fraction_high" for n in range(5, 11)},
}
QUALITY = {
    "num_words": (5, 40),  # Gopher's 50 to 100,000, for the short texts that are made here
    "mean_word_length_chars": (3, 10),
    "hash_word_ratio": (None, 0.1),
    "ellipsis_word_ratio": (None, 0.1),
    "bullet_line_fraction": (None, 0.9),
    "ellipsis_line_fraction": (None, 0.3),
    "alphabetic_word_fraction": (0.8, None),
    "num_stop_words": (2, None),
}
QUALITY_REASONS = {
    "gopher_short_doc": "num_words_low",
    "gopher_long_doc": "num_words_high",
    "gopher_below_avg_threshold": "mean_word_length_chars_low",
    "gopher_above_avg_threshold": "mean_word_length_chars_high",
    "gopher_too_many_hashes": "hash_word_ratio_high",
    "gopher_too_many_ellipsis": "ellipsis_word_ratio_high",
    "gopher_too_many_bullets": "bullet_line_fraction_high",
    "gopher_too_many_end_ellipsis": "ellipsis_line_fraction_high",
    "gopher_below_alpha_threshold": "alphabetic_word_fraction_low",
    "gopher_enough_stop_words": "num_stop_words_low",
}
FINEWEB = {
    "terminal_line_fraction": (0.12, None),
    "short_line_fraction": (None, 0.67),
    "repeated_line_char_fraction": (None, 0.01),
    "newline_word_ratio": (None, 0.3),
}
FINEWEB_REASONS = {
    "line_punct_ratio": "terminal_line_fraction_low",
    "short_line_ratio": "short_line_fraction_high",
    "char_dup_ratio": "repeated_line_char_fraction_high",
    "list_ratio": "newline_word_ratio_high",
}
C4 = {
    "num_lorem_ipsum_lines": (None, 0),
    "num_curly_bracket_lines": (None, 0),
    "num_sentences": (5, None),
}
C4_REASONS = {
    "lorem_ipsum": "num_lorem_ipsum_lines_high",
    "curly_bracket": "num_curly_bracket_lines_high",
    "too_few_sentences": "num_sentences_low",
}
C4_LINE_RULES = (
    *("long_word", "citation", "no_terminal_punctuation", "few_words", "javascript", "policy"),
)


def corrector(rules: tuple[str, ...]):
    def correct(text: str) -> Correction:
        return correct_lines(
            text,
            rules,
            min_words=3,
            max_word_chars=1000,
            max_upper_case_fraction=0.5,
            max_call_words=10,
        )

    return correct


def ours(text: str, rules, line_rules: tuple[str, ...] = ()) -> tuple[str, str]:
    """The reason, "" for none, and the corrected text."""
    scored = score_texts([text], corrector(line_rules), language_max_chars=80, short_line_chars=30)
    reason = decide(scored.scores, ["en"], [KEPT], keep_languages=[], rules_of={"": rules})[0]
    return reason, scored.texts[0]


def datatroves(text: str, rules: BaseFilter, names: dict[str, str]) -> tuple[str, str]:
    document = Document(text=text, id="0")
    result = rules.filter(document)
    return "" if result is True else names[result[1]], document.text


@quick
@given(TEXT)
@example("the word and the word and the word and the word and the word and the word\n" * 3)
def test_gopher_repetition_removes_the_same_for_the_same_reason(text: str) -> None:
    text = normalise_lines(text)
    assume(text)
    theirs = datatroves(text, GopherRepetitionFilter(language=PlainWords()), REPETITION_REASONS)
    assert ours(text, REPETITION) == theirs


@quick
@given(TEXT)
@example("- the long word is to be of it\n- and the long word have that\n- with it")
@example("the word to be and have # word of that")
@example("the words to have and be with...\nthose of the others")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's mean of no word
def test_gopher_quality_removes_the_same_for_the_same_reason(text: str) -> None:
    text = normalise_lines(text)
    assume(plain_words(text))
    filters = GopherQualityFilter(min_doc_words=5, max_doc_words=40, language=PlainWords())
    assert ours(text, QUALITY) == datatroves(text, filters, QUALITY_REASONS)


@quick
@given(TEXT)
@example("…")  # says that something is left out, not that a sentence ends
@example("\n".join(["A whole sentence of more than thirty characters, the same."] * 2))
def test_fineweb_removes_the_same_for_the_same_reason(text: str) -> None:
    text = normalise_lines(text)
    assume(text)
    filters = FineWebQualityFilter(language=PlainWords())
    assert ours(text, FINEWEB) == datatroves(text, filters, FINEWEB_REASONS)


@quick
@given(TEXT)
@example("the word is to be. " * 5 + "\nuses cookies {of the word}.\nJavaScript {of} the word.")
@example("word word word lorem ipsum.\nJavaScript lorem ipsum word.\n" + "a b c.\n" * 5)
@example("   " + "It is [12] so.\n" * 6)
def test_c4_removes_the_same_lines_and_documents_for_the_same_reason(text: str) -> None:
    text = normalise_lines(text)
    assume(text)
    reason, corrected = ours(text, C4, C4_LINE_RULES)
    filters = C4QualityFilter(language=PlainWords())
    their_reason, their_text = datatroves(text, filters, C4_REASONS)
    if reason == "num_lorem_ipsum_lines_high":  # datatrove stops at the first of both in the text
        assert their_reason in (reason, "num_curly_bracket_lines_high")
    else:
        assert reason == their_reason
    if not reason:
        assert corrected == their_text


@quick
@given(TEXT)
def test_fineweb_judges_what_c4_left_over(text: str) -> None:
    text = normalise_lines(text)
    _, corrected = ours(text, {}, C4_LINE_RULES)
    assume(corrected)
    filters = FineWebQualityFilter(language=PlainWords())
    their_reason, _ = datatroves(corrected, filters, FINEWEB_REASONS)
    assert ours(text, FINEWEB, C4_LINE_RULES)[0] == their_reason
