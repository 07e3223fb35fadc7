"""A text as the set of its word n-grams, each a 64-bit hash."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from components.words import (
    ALPHANUMERIC,
    U64,
    Ints,
    gram_hashes,
    sequence_hashes,
    split_words,
)

ZERO, NINE = ord("0"), ord("9")


@dataclass(frozen=True)
class Shingles:
    """The n-gram sets of D texts, one after the other."""

    values: U64
    """[S] ascending and distinct within a text."""
    first: Ints
    """[D + 1] text d has values[first[d]:first[d + 1]]."""

    @property
    def sizes(self) -> Ints:
        return np.diff(self.first)


def shingle(texts: Sequence[str], n: int) -> Shingles:
    """n-grams of words in lower case, with every digit as 0 and without signs.

    So a version, a date or a comma makes no difference, as in FineWeb's and CCNet's comparison. A
    text with fewer than n words is one gram; one without any has none.
    """
    words = split_words([text.lower() for text in texts])
    is_digit = (words.codes >= ZERO) & (words.codes <= NINE)
    words = replace(words, codes=np.where(is_digit, np.uint32(ZERO), words.codes))
    is_word = words.any_flag(ALPHANUMERIC)
    num_words = words.count(is_word)
    prefix = sequence_hashes(words.hashes[is_word])
    first_word = _offsets(num_words)
    num_grams = np.maximum(num_words - (n - 1), np.minimum(num_words, 1))
    first = _offsets(num_grams)
    text = np.repeat(np.arange(len(texts)), num_grams)
    begin = np.arange(first[-1]) - first[text] + first_word[text]
    values = gram_hashes(prefix, begin, np.minimum(num_words, n)[text])
    for start, end in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        values[start:end].sort()
    fresh = np.ones(len(values), bool)
    fresh[1:] = (values[1:] != values[:-1]) | (text[1:] != text[:-1])
    return Shingles(
        values[fresh], _offsets(np.bincount(text[fresh], minlength=len(texts)).astype(np.int64))
    )


def join(parts: Iterable[Shingles]) -> Shingles:
    """The sets of all parts, one after the other."""
    values, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for part in parts:
        values.append(part.values)
        sizes.append(part.sizes)
    return Shingles(np.concatenate(values), _offsets(np.concatenate(sizes)))


def jaccard(one: U64, other: U64) -> float:
    """Shared over all values of two sets, each ascending and distinct; 0 if both are empty."""
    shared = num_shared(one, other)
    return shared / max(1, len(one) + len(other) - shared)


def num_shared(one: U64, other: U64) -> int:
    """How many values two sets share, each ascending and distinct."""
    both = np.concatenate((one, other))
    both.sort()
    return int(np.count_nonzero(both[1:] == both[:-1]))


def _offsets(sizes: Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(sizes)))
