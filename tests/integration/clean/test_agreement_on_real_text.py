"""Our rules and datatrove's on the documentation of five real services, document by document."""

from collections import Counter

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter

from components.clean.decision import KEPT, decide
from components.clean.lines import Correction, correct_lines, normalise_lines
from components.clean.scoring import score_texts
from tests.builders import PlainWords, documentation

# (datatrove's reason, our metric, low, high), in datatrove's order.
REPETITION = [
    ("dup_para_frac", "duplicate_paragraph_fraction", None, 0.3),
    ("dup_para_char_frac", "duplicate_paragraph_char_fraction", None, 0.2),
    ("dup_line_frac", "duplicate_line_fraction", None, 0.3),
    ("dup_line_char_frac", "duplicate_line_char_fraction", None, 0.2),
    ("top_2_gram", "top_2_gram_char_fraction", None, 0.2),
    ("top_3_gram", "top_3_gram_char_fraction", None, 0.18),
    ("top_4_gram", "top_4_gram_char_fraction", None, 0.16),
    ("duplicated_5_n_grams", "duplicate_5_gram_char_fraction", None, 0.15),
    ("duplicated_6_n_grams", "duplicate_6_gram_char_fraction", None, 0.14),
    ("duplicated_7_n_grams", "duplicate_7_gram_char_fraction", None, 0.13),
    ("duplicated_8_n_grams", "duplicate_8_gram_char_fraction", None, 0.12),
    ("duplicated_9_n_grams", "duplicate_9_gram_char_fraction", None, 0.11),
    ("duplicated_10_n_grams", "duplicate_10_gram_char_fraction", None, 0.10),
]
QUALITY = [
    ("gopher_short_doc", "num_words", 50, None),
    ("gopher_below_avg_threshold", "mean_word_length_chars", 3, None),
    ("gopher_above_avg_threshold", "mean_word_length_chars", None, 10),
    ("gopher_below_alpha_threshold", "alphabetic_word_fraction", 0.8, None),
    ("gopher_enough_stop_words", "num_stop_words", 2, None),
]
C4 = [
    ("lorem_ipsum", "num_lorem_ipsum_lines", None, 0),
    ("curly_bracket", "num_curly_bracket_lines", None, 0),
    ("too_few_sentences", "num_sentences", 5, None),
]
FINEWEB = [
    ("line_punct_ratio", "terminal_line_fraction", 0.12, None),
    ("short_line_ratio", "short_line_fraction", None, 0.67),
    ("char_dup_ratio", "repeated_line_char_fraction", None, 0.01),
    ("list_ratio", "newline_word_ratio", None, 0.3),
]
# FineWeb's: C4 without the rule on terminal punctuation.
C4_LINE_RULES = ("long_word", "citation", "few_words", "javascript", "policy")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """datatrove takes a lone `•` for a word; with `-` both take it for a sign."""
    services = ("sqs", "dynamodb", "iam", "mediaconvert", "lex-models")
    texts = [normalise_lines(text.replace("•", "-")) for text in documentation(services)]
    assert len(texts) > 300
    return texts


def ours(texts: list[str], rules: list[tuple], line_rules: tuple[str, ...]) -> tuple[list, list]:
    def correct(text: str) -> Correction:
        return correct_lines(
            text,
            line_rules,
            min_words=3,
            max_word_chars=1000,
            max_upper_case_fraction=0.5,
            max_call_words=10,
        )

    scored = score_texts(texts, correct, language_max_chars=100, short_line_chars=30)
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for _, metric, low, high in rules:
        before = bounds.get(metric, (None, None))
        bounds[metric] = (before[0] if low is None else low, before[1] if high is None else high)
    reasons = decide(
        scored.scores,
        ["en"] * len(texts),
        [KEPT] * len(texts),
        keep_languages=[],
        rules_of={"": bounds},
    )
    return reasons, scored.texts


def theirs(texts: list[str], filters: BaseFilter, rules: list[tuple]) -> tuple[list, list]:
    names = {
        reason: f"{metric}_{'low' if high is None else 'high'}"
        for reason, metric, low, high in rules
    }
    documents = [Document(text=text, id="0") for text in texts]
    results = [filters.filter(document) for document in documents]
    return (
        [KEPT if result is True else names[result[1]] for result in results],
        [document.text for document in documents],
    )


@pytest.mark.parametrize(
    ("filters", "rules", "line_rules", "least_removed"),
    [
        (GopherRepetitionFilter(language=PlainWords()), REPETITION, (), 50),
        (GopherQualityFilter(language=PlainWords()), QUALITY, (), 50),
        (
            C4QualityFilter(filter_no_terminal_punct=False, language=PlainWords()),
            C4,
            C4_LINE_RULES,
            10,
        ),
        (FineWebQualityFilter(language=PlainWords()), FINEWEB, (), 50),
    ],
    ids=["gopher_repetition", "gopher_quality", "c4", "fineweb"],
)
def test_every_document_meets_the_same_fate_for_the_same_reason(
    texts: list[str], filters: BaseFilter, rules: list[tuple], line_rules, least_removed: int
) -> None:
    our_reasons, our_texts = ours(texts, rules, line_rules)
    their_reasons, their_texts = theirs(texts, filters, rules)
    differing = [
        (texts[i][:60], our_reasons[i], their_reasons[i])
        for i in range(len(texts))
        if our_reasons[i] != their_reasons[i]
    ]
    assert differing == []
    for i, reason in enumerate(our_reasons):
        if reason == KEPT:
            # datatrove takes the indentation of a list as well.
            assert [line.lstrip() for line in our_texts[i].split("\n")] == [
                line.lstrip() for line in their_texts[i].split("\n")
            ]
    counts = Counter(our_reasons)
    assert len(texts) - counts[KEPT] >= least_removed  # the comparison is not an empty one
    assert len(counts) >= 3
