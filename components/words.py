"""The words of many texts at once, as arrays: what repetition metrics and near-duplicate search count.

A word is a run of letters, digits, marks and `_` (an apostrophe between two of them belongs to it);
a letter of a script written without spaces (Han, kana, Thai, Lao, Burmese, Khmer) is a word of its
own; so is every other character that is not white space. Hence every character but white space lies
in exactly one word, and n consecutive words are n consecutive pieces of one array.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]
Flags = NDArray[np.uint8]

KNOWN, SPACE, WORD, ALONE, ALPHABETIC, ALPHANUMERIC = (np.uint8(1 << bit) for bit in range(6))

SCRIPTS_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
APOSTROPHES = (ord("'"), ord("’"))

# Odd, so that each has an inverse modulo 2**64 and no difference of hashes is lost.
CHARACTER_BASE = 0x9E3779B97F4A7C15
WORD_BASE = 0xD1B54A32D192ED03


@dataclass(frozen=True)
class Words:
    """The words of D texts, one text after the other: W words, C characters, white space left out."""

    text: Ints
    """[W] which text a word is of, ascending."""
    start: Ints
    """[W + 1] word w is characters start[w]:start[w + 1]."""
    first: Ints
    """[D + 1] text d has the words first[d]:first[d + 1]."""
    codes: NDArray[np.uint32]
    """[C] code points."""
    flags: Flags
    """[C] what kind of character."""

    @property
    def num_texts(self) -> int:
        return len(self.first) - 1

    def lengths(self) -> Ints:
        """[W] in characters."""
        return np.diff(self.start)

    def count(self, of_word: NDArray[np.bool_]) -> Ints:
        """[D] for how many words of each text it is true."""
        return np.bincount(self.text[of_word], minlength=self.num_texts).astype(np.int64)

    def any_flag(self, flag: np.uint8) -> NDArray[np.bool_]:
        """[W] whether any character of the word has the flag."""
        found: NDArray[np.bool_] = (self._flags_of_words & flag) != 0
        return found

    @cached_property
    def hashes(self) -> U64:
        """[W] equal for equal words; two different ones collide with probability about 2**-64."""
        spans = _spans(self.prefix_hashes, self.start[:-1], self.start[1:], CHARACTER_BASE)
        return _mix(spans ^ self.lengths().astype(np.uint64))

    @cached_property
    def prefix_hashes(self) -> U64:
        """[C + 1] over characters, for `concatenated_gram_hashes`."""
        return _prefix_hashes(self.codes + np.uint64(1), CHARACTER_BASE)

    @cached_property
    def _flags_of_words(self) -> Flags:
        if not len(self.text):
            return np.zeros(0, np.uint8)
        return np.bitwise_or.reduceat(self.flags, self.start[:-1])


def split_words(texts: Sequence[str]) -> Words:
    """Split texts into words. Peak memory is about 40 bytes a character."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    flags = _flags(codes)
    in_word = (flags & (WORD | ALONE)) == WORD
    at_start = np.zeros(len(codes) + 1, bool)
    at_start[ends] = at_start[0] = True
    after_word = np.zeros(len(codes), bool)
    after_word[1:] = in_word[:-1]
    after_word[at_start[:-1]] = False
    apostrophe = (codes == APOSTROPHES[0]) | (codes == APOSTROPHES[1])
    inner = np.flatnonzero(apostrophe & after_word)
    inner = inner[inner + 1 < len(codes)]
    inner = inner[in_word[inner + 1] & ~at_start[inner + 1]]
    in_word[inner] = after_word[inner + 1] = True

    kept = (flags & SPACE) == 0
    begins = kept & ~(in_word & after_word)
    kept_before = np.zeros(len(codes) + 1, np.int64)
    np.cumsum(kept, out=kept_before[1:])
    begin = np.flatnonzero(begins)
    first = np.searchsorted(begin, np.concatenate(([0], ends)))
    return Words(
        text=np.repeat(np.arange(len(texts)), np.diff(first)),
        start=np.append(kept_before[begin], kept_before[-1]),
        first=first,
        codes=codes[kept],
        flags=flags[kept],
    )


def concatenated_gram_hashes(words: Words, begin: Ints, n: int) -> U64:
    """Of the n words from each of `begin` on, written without spaces."""
    return _spans(words.prefix_hashes, words.start[begin], words.start[begin + n], CHARACTER_BASE)


def gram_hashes(prefix: U64, begin: Ints, n: int | Ints) -> U64:
    """Of the n words from each of `begin` on, as a sequence; `prefix`: sequence_hashes."""
    return _spans(prefix, begin, begin + n, WORD_BASE)


def sequence_hashes(hashes: U64) -> U64:
    """[W + 1] over the hashes of words, for gram_hashes."""
    return _prefix_hashes(hashes, WORD_BASE)


def gram_begins(words: Words, n: int) -> Ints:
    """Every word with which n consecutive words of one text begin."""
    if len(words.text) < n:
        return np.zeros(0, np.int64)
    return np.flatnonzero(words.text[: len(words.text) - n + 1] == words.text[n - 1 :])


def _prefix_hashes(values: U64, base: int) -> U64:
    """sum over i of values[i] * base**i modulo 2**64, before each position and at the end."""
    prefix = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(base, len(values)), out=prefix[1:])
    return prefix


def _spans(prefix: U64, begin: Ints, end: Ints, base: int) -> U64:
    """The same for equal spans wherever they stand: the sum over the span, times base**-begin."""
    inverse = pow(base, -1, 1 << 64)
    return _mix((prefix[end] - prefix[begin]) * _powers(inverse, len(prefix))[begin])


def _powers(base: int, count: int) -> U64:
    """base**0 ... base**(count - 1) modulo 2**64."""
    return _powers_up_to(base, max(1, count - 1).bit_length())[:count]


@cache
def _powers_up_to(base: int, log2_count: int) -> U64:
    powers = np.full(1 << log2_count, np.uint64(base))
    powers[0] = 1
    powers = np.cumprod(powers)
    powers.flags.writeable = False
    return powers


def _mix(hashes: U64) -> U64:
    """MurmurHash3's 64-bit finalizer: a bijection after which every bit depends on every other."""
    hashes = hashes ^ (hashes >> np.uint64(33))
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xC4CEB9FE1A85EC53)
    hashes ^= hashes >> np.uint64(33)
    return hashes


def _flags(codes: NDArray[np.uint32]) -> Flags:
    """What each character is; the table grows by the characters a process meets."""
    table = _flag_table()
    flags = table[codes]
    if not flags.all():
        for code in np.unique(codes[flags == 0]).tolist():
            table[code] = _classify(chr(code))
        flags = table[codes]
    return flags


@cache
def _flag_table() -> Flags:
    return np.zeros(0x110000, np.uint8)


def _classify(char: str) -> np.uint8:
    flags = KNOWN
    if char.isspace():
        flags |= SPACE
    elif char == "_" or char.isalnum() or category(char).startswith("M"):
        flags |= WORD
        if any(low <= ord(char) <= high for low, high in SCRIPTS_WITHOUT_SPACES):
            flags |= ALONE
    if char.isalpha():
        flags |= ALPHABETIC
    if char.isalnum():
        flags |= ALPHANUMERIC
    return flags
