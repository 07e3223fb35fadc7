"""One vector of scores a document, whatever becomes of it: no decision falls here."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.clean.language import identify_languages
from components.clean.lines import Correction, normalise_lines
from components.clean.quality import correction_scores, fineweb_scores, gopher_scores
from components.clean.repetition import repetition_scores
from components.words import split_words

CHARS_PER_BATCH = 300_000
"""The arrays of one batch then lie in the cache; a longer document is a batch of its own."""


@dataclass(frozen=True)
class Scored:
    """D documents after correction, and what was measured."""

    texts: list[str]
    """[D] with their lines corrected."""
    languages: list[str]
    """[D]"""
    scores: dict[str, NDArray[np.float64]]
    """[D] of each metric: of the whole text for language, Gopher and repetition, of the corrected
    one for the rest, as FineWeb orders them."""
    removed_lines: Counter[str]
    """Number of lines that the correction removed, by rule."""


def score_texts(
    texts: Sequence[str],
    correct: Callable[[str], Correction],
    *,
    language_max_chars: int,
    short_line_chars: int,
) -> Scored:
    """Measure documents; `correct` is `correct_lines` with its rules."""
    texts = [normalise_lines(text) for text in texts]
    languages, language_scores = identify_languages(texts, language_max_chars)
    words = split_words(texts)
    num_tokens = np.diff(words.first)
    corrections = [correct(text) for text in texts]
    corrected = [correction.text for correction in corrections]
    changed = [index for index, text in enumerate(texts) if corrected[index] != text]
    if changed:
        num_tokens[changed] = np.diff(split_words([corrected[index] for index in changed]).first)
    return Scored(
        texts=corrected,
        languages=languages,
        scores={
            "language_score": language_scores,
            **gopher_scores(texts, words),
            **repetition_scores(texts, words),
            **correction_scores(texts, corrections),
            **fineweb_scores(corrected, num_tokens, short_line_chars),
        },
        removed_lines=sum((correction.removed_lines for correction in corrections), Counter()),
    )


def batches_of_chars(lengths: Sequence[int], num_chars: int) -> Iterator[slice]:
    """Runs of consecutive documents with about `num_chars` characters, at least one document."""
    start = total = 0
    for index, length in enumerate(lengths):
        if index > start and total + length > num_chars:
            yield slice(start, index)
            start, total = index, 0
        total += length
    if start < len(lengths):
        yield slice(start, len(lengths))
