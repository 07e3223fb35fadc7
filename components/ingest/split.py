"""Choices that depend on content alone: the split of a document, and one of several by hash."""

import hashlib
from collections.abc import Mapping

from components.schemas import SPLITS


def split_of(text: str, fractions: Mapping[str, float]) -> str:
    """`train`, `valid` or `test`, from the content alone.

    A text always lands in the same split, whatever stands beside it and wherever it came from, so
    adding a source never moves a document across the line, and exact duplicates never straddle it.
    The hash covers the words only: how they are spaced does not matter.
    """
    place = _bits("split", " ".join(text.split())) / 2**53
    for split in reversed(SPLITS):  # the held-out ones first: rounding may only ever feed train
        if place < fractions[split]:
            return split
        place -= fractions[split]
    return "train"


def choose(num: int, *parts: str) -> int:
    """An index in [0, num): a pure function of `parts`. num is far below 2^53, so even enough."""
    return _bits(*parts) % num


def choose_fraction(*parts: str) -> float:
    """A number in [0, 1): a pure function of `parts`."""
    return _bits(*parts) / 2**53


def _bits(*parts: str) -> int:
    """53 bits of the SHA-256 of `parts`: what a float holds exactly."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") >> 3
