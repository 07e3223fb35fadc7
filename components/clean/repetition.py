"""How much of a document repeats itself: Gopher's Table A1 (Rae et al. 2021, arXiv 2112.11446)."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.words import (
    U64,
    Ints,
    Words,
    concatenated_gram_hashes,
    gram_begins,
    gram_hashes,
    sequence_hashes,
)

Scores = dict[str, NDArray[np.float64]]

TOP_GRAMS = (2, 3, 4)
DUPLICATE_GRAMS = (5, 6, 7, 8, 9, 10)

PARAGRAPH_BREAK = re.compile(r"\n{2,}")
LINE_BREAK = re.compile(r"\n+")
TEXT_SALT = np.uint64(0xA24BAED4963EE407)


def repetition_scores(texts: Sequence[str], words: Words) -> Scores:
    """One number in 0..1 a text for each metric; 0 for an empty text.

    `texts` have no white space at their ends and none before a line's end; `words` are theirs.
    Characters are counted as in datatrove's GopherRepetitionFilter: of all repetitions but the
    first for lines, paragraphs and duplicate n-grams, of every one for the most frequent n-gram
    (words with a space between, even if it occurs once), over all characters of the text.
    """
    num_chars = np.maximum([len(text) for text in texts], 1).astype(np.float64)
    scores: Scores = {}
    for name, separator in (("paragraph", PARAGRAPH_BREAK), ("line", LINE_BREAK)):
        repeats = np.array([_repeats(separator.split(text)) for text in texts], np.float64)
        repeats = repeats.reshape(-1, 3)
        scores[f"duplicate_{name}_fraction"] = repeats[:, 0] / repeats[:, 1]
        scores[f"duplicate_{name}_char_fraction"] = repeats[:, 2] / num_chars
    sequence = sequence_hashes(words.hashes)
    for n in TOP_GRAMS:
        scores[f"top_{n}_gram_char_fraction"] = _top_gram_chars(words, sequence, n) / num_chars
    for n in DUPLICATE_GRAMS:
        chars = _duplicate_gram_chars(words, n)
        scores[f"duplicate_{n}_gram_char_fraction"] = chars / num_chars
    return scores


def _repeats(pieces: Sequence[str]) -> tuple[int, int, int]:
    """Pieces seen before, all pieces, characters of those seen before."""
    if len(set(pieces)) == len(pieces):
        return 0, len(pieces), 0
    seen: set[str] = set()
    num_repeats = num_chars = 0
    for piece in pieces:
        if piece in seen:
            num_repeats += 1
            num_chars += len(piece)
        else:
            seen.add(piece)
    return num_repeats, len(pieces), num_chars


def _top_gram_chars(words: Words, sequence: U64, n: int) -> NDArray[np.float64]:
    """[D] length times count of the most frequent n-gram; among equals the first to occur."""
    begin = gram_begins(words, n)
    top = np.zeros(words.num_texts)
    lengths = words.start[begin + n] - words.start[begin] + (n - 1)
    # Where nothing repeats the first n-gram is the most frequent one. Written in reverse, so that
    # of several values for one text the first stays.
    top[words.text[begin[::-1]]] = lengths[::-1]
    groups = _groups_of_equals(words, begin, gram_hashes(sequence, begin, n))
    if not len(groups.first):
        return top
    # Most occurrences first, then the earliest first occurrence: one number to maximise.
    key = (groups.size << np.int64(32)) | (np.int64(2**32 - 1) - groups.first)
    best = np.full(words.num_texts, -1, np.int64)
    np.maximum.at(best, words.text[begin[groups.first]], key)
    text = np.flatnonzero(best >= 0)
    first = np.int64(2**32 - 1) - (best[text] & np.int64(2**32 - 1))
    top[text] = lengths[first] * (best[text] >> np.int64(32))
    return top


def _duplicate_gram_chars(words: Words, n: int) -> NDArray[np.float64]:
    """[D] characters in n-grams that began earlier too, read from the left without overlap."""
    begin = gram_begins(words, n)
    groups = _groups_of_equals(words, begin, concatenated_gram_hashes(words, begin, n))
    seen = bytearray(len(groups.first))
    repeats = []
    free = 0
    for position, group in zip(begin[groups.position].tolist(), groups.group.tolist(), strict=True):
        if position < free:
            continue
        if seen[group]:
            repeats.append(position)
            free = position + n
        else:
            seen[group] = 1
    repeated = np.array(repeats, np.int64)
    lengths = words.start[repeated + n] - words.start[repeated]
    chars = np.bincount(words.text[repeated], lengths, words.num_texts)
    return chars.astype(np.float64)


class _Groups:
    """The n-grams that occur at least twice in their text: G groups, P occurrences."""

    def __init__(self, first: Ints, size: Ints, position: Ints, group: Ints) -> None:
        self.first = first  # [G] index of the first occurrence, of all n-grams
        self.size = size  # [G] number of occurrences
        self.position = position  # [P] index of each occurrence, ascending
        self.group = group  # [P] which group that is


def _groups_of_equals(words: Words, begin: Ints, hashes: U64) -> _Groups:
    hashes = hashes ^ (words.text[begin].astype(np.uint64) * TEXT_SALT)
    # Sorting is the dear part; alone in its bucket of a table is alone altogether.
    num_buckets = 1 << (4 * len(hashes)).bit_length()
    bucket = (hashes & np.uint64(num_buckets - 1)).astype(np.int64)
    crowded = np.flatnonzero(np.bincount(bucket, minlength=num_buckets)[bucket] > 1)
    hashes = hashes[crowded]
    order = np.argsort(hashes)
    ordered = hashes[order]
    same = np.zeros(len(ordered) + 1, bool)  # as the one before
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    member = same[:-1] | same[1:]
    index = crowded[order[member]]
    if not len(index):
        nothing = np.zeros(0, np.int64)
        return _Groups(nothing, nothing, nothing, nothing)
    opens = ~same[:-1][member]
    start = np.flatnonzero(opens)
    group_of = np.full(len(begin), -1, np.int64)
    group_of[index] = np.cumsum(opens) - 1
    position = np.flatnonzero(group_of >= 0)
    return _Groups(
        first=np.minimum.reduceat(index, start),
        size=np.diff(np.append(start, len(index))),
        position=position,
        group=group_of[position],
    )
