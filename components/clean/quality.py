"""Scores that say whether a text reads like prose: the metrics of Gopher, C4 and FineWeb.

Gopher: Rae et al. 2021 (arXiv 2112.11446) A.1.1. C4 and mC4: Raffel et al. 2020 (arXiv 1910.10683),
Xue et al. 2021 (arXiv 2010.11934). FineWeb: Penedo et al. 2024 (arXiv 2406.17557) 3.5. Defined as in
datatrove's filters; a ratio whose denominator is 0 is 0.
"""

import re
from collections.abc import Sequence
from heapq import nlargest

import numpy as np
from numpy.typing import NDArray

from components.clean.lines import Correction
from components.words import ALPHABETIC, ALPHANUMERIC, Words, split_words

Scores = dict[str, NDArray[np.float64]]

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("•", "-")
ELLIPSES = ("...", "…")
TERMINAL_MARKS = (*".!?", *"。！？．｡।॥؟۔։።၊။។៕")
# Replacement character, control characters but tab and line feed, private use, surrogates.
GARBLED = re.compile("[\ufffd\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\uf8ff]")
SENTENCE_END = re.compile(r"""[.!?…।؟۔]+["'”’)\]]*(?=\s|$)|[。！？｡]+["'”’」』）]*""")


def gopher_scores(texts: Sequence[str], words: Words) -> Scores:
    """Words, symbols, bullets and stop words of each text; `words` are the texts' own."""
    is_word = words.any_flag(ALPHANUMERIC)
    num_tokens = np.diff(words.first).astype(np.float64)
    num_words = words.count(is_word).astype(np.float64)
    num_chars = np.bincount(words.text[is_word], words.lengths()[is_word], words.num_texts)
    lines = [text.split("\n") for text in texts]
    num_lines = np.array([len(of_text) for of_text in lines], np.float64)
    stop_words = np.zeros(words.num_texts)
    for stop_word in split_words(STOP_WORDS).hashes:
        stop_words += words.count(words.hashes == stop_word) > 0
    return {
        "num_words": num_words,
        "mean_word_length_chars": _ratio(num_chars, num_words),
        "hash_word_ratio": _ratio(_counts(texts, ("#",)), num_tokens),
        "ellipsis_word_ratio": _ratio(_counts(texts, ELLIPSES), num_tokens),
        "bullet_line_fraction": _ratio(
            [sum(line.lstrip().startswith(BULLETS) for line in of_text) for of_text in lines],
            num_lines,
        ),
        "ellipsis_line_fraction": _ratio(
            [sum(line.endswith(ELLIPSES) for line in of_text) for of_text in lines], num_lines
        ),
        "alphabetic_word_fraction": _ratio(words.count(words.any_flag(ALPHABETIC)), num_tokens),
        "num_stop_words": stop_words,
        "garbled_char_fraction": _ratio(
            [len(GARBLED.findall(text)) for text in texts], [len(text) for text in texts]
        ),
    }


def correction_scores(texts: Sequence[str], corrections: Sequence[Correction]) -> Scores:
    """C4's document rules, and RefinedWeb's share of the words that went with removed lines.

    `texts` are those before the correction.
    """
    return {
        "removed_word_fraction": _ratio(
            [correction.num_removed_words for correction in corrections],
            [
                len(text.split()) if correction.num_removed_words else 1
                for text, correction in zip(texts, corrections, strict=True)
            ],
        ),
        "num_lorem_ipsum_lines": _floats([c.num_lorem_ipsum_lines for c in corrections]),
        "num_curly_bracket_lines": _floats([c.num_curly_bracket_lines for c in corrections]),
        "num_sentences": _floats([num_sentences(c.text) for c in corrections]),
        "third_longest_line_chars": _floats([_third_longest_line(c.text) for c in corrections]),
    }


def fineweb_scores(
    texts: Sequence[str], num_tokens: Sequence[int] | NDArray[np.int64], short_line_chars: int
) -> Scores:
    """How lines end, how short and how often repeated they are; blank lines do not count.

    `num_tokens` are the words of each text, signs included (`components.words`).
    """
    lines = [[line for line in text.split("\n") if line] for text in texts]
    num_lines = [len(of_text) for of_text in lines]
    return {
        "terminal_line_fraction": _ratio(
            [sum(line.endswith(TERMINAL_MARKS) for line in of_text) for of_text in lines],
            num_lines,
        ),
        "short_line_fraction": _ratio(
            [sum(len(line) <= short_line_chars for line in of_text) for of_text in lines],
            num_lines,
        ),
        "repeated_line_char_fraction": _ratio(
            [_repeated_chars(of_text) for of_text in lines],
            [sum(map(len, of_text)) for of_text in lines],
        ),
        "newline_word_ratio": _ratio(_counts(texts, ("\n",)), num_tokens),
    }


def num_sentences(text: str) -> int:
    """Sentences, line by line; what is left of a line after its last full stop is one as well."""
    count = 0
    for line in text.split("\n"):
        if not line:
            continue
        end = 0
        for match in SENTENCE_END.finditer(line):
            count += 1
            end = match.end()
        count += end < len(line)
    return count


def _third_longest_line(text: str) -> int:
    """mC4 wants three lines of 200 characters; 0 if there are not three lines."""
    longest = nlargest(3, map(len, text.split("\n")))
    return longest[2] if len(longest) == 3 else 0


def _repeated_chars(lines: Sequence[str]) -> int:
    if len(set(lines)) == len(lines):
        return 0
    return sum(map(len, lines)) - sum(map(len, set(lines)))


def _counts(texts: Sequence[str], parts: Sequence[str]) -> NDArray[np.float64]:
    return _floats([sum(text.count(part) for part in parts) for text in texts])


def _floats(values: Sequence[float]) -> NDArray[np.float64]:
    return np.array(values, np.float64)


def _ratio(
    numerator: Sequence[float] | NDArray[np.generic],
    denominator: Sequence[float] | NDArray[np.generic],
) -> NDArray[np.float64]:
    below = np.asarray(denominator, np.float64)
    return np.asarray(numerator, np.float64) / np.where(below == 0, 1, below)
