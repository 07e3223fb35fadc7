"""Lines that occur again and again in the corpus, after CCNet (Wenzek et al. 2020, 1911.00359).

CCNet's paragraph is a line: in lower case, digits as 0, without punctuation, named by the first
eight bytes of its SHA-1; the first occurrence stays. It removes a line at its second occurrence,
however short; here both are parameters, because documentation that loses every definition it shares
with another page no longer explains anything. `min_occurrences` 2 and `min_chars` 1 are CCNet.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.dedup.spill import U64, Ints

DIGIT = re.compile(r"\d")
SIGNS = re.compile(r"[^\w\s]|_")
BLANK_LINES = re.compile(r"\n{3,}")
VALUES_AT_ONCE = 1 << 24  # 128 MiB of hashes


def paragraph_hashes(texts: Sequence[str], min_chars: int) -> tuple[U64, Ints]:
    """The hashes of the lines of each text that may go, and [D] how many each text has."""
    hashes = [[_hash(line) for line in _candidates(text, min_chars)] for text in texts]
    flat = [each for of_text in hashes for each in of_text]
    return np.array(flat, np.uint64), np.array([len(of_text) for of_text in hashes], np.int64)


def repeated(hashes: U64, counts: NDArray[np.bool_], min_occurrences: int) -> NDArray[np.bool_]:
    """[P] which lines go: those of at least `min_occurrences` equal ones, but for the first.

    `counts` says which of the P lines count: not those of documents that were removed. The hashes
    are taken a range at a time, so memory stays flat.
    """
    goes = np.zeros(len(hashes), bool)
    num_ranges = -(-len(hashes) // VALUES_AT_ONCE)
    edges = [(1 << 64) * part // max(1, num_ranges) for part in range(num_ranges + 1)]
    for low, high in pairwise(edges):
        position = np.flatnonzero(
            counts & (hashes >= np.uint64(low)) & (hashes <= np.uint64(high - 1))
        )
        values = hashes[position]
        _, first, inverse, count = np.unique(
            values, return_index=True, return_inverse=True, return_counts=True
        )
        is_first = np.zeros(len(values), bool)
        is_first[first] = True
        goes[position] = (count[inverse] >= min_occurrences) & ~is_first
    return goes


def without(text: str, goes: NDArray[np.bool_], min_chars: int) -> str:
    """The text without the lines that go; `goes` is of its candidate lines, in order."""
    if not goes.any():
        return text
    verdicts = iter(goes.tolist())
    kept = [
        line for line in text.split("\n") if not (_is_candidate(line, min_chars) and next(verdicts))
    ]
    return BLANK_LINES.sub("\n\n", "\n".join(kept)).strip()


def normalise(line: str) -> str:
    """CCNet's form for comparison."""
    return SIGNS.sub("", DIGIT.sub("0", line.strip().lower())).strip()


def _candidates(text: str, min_chars: int) -> Iterator[str]:
    return (line for line in text.split("\n") if _is_candidate(line, min_chars))


def _is_candidate(line: str, min_chars: int) -> bool:
    return len(line) >= min_chars and not line.isspace()


def _hash(line: str) -> int:
    digest = hashlib.sha1(normalise(line).encode("utf-8", "surrogatepass"), usedforsecurity=False)
    return int.from_bytes(digest.digest()[:8], "big")
