"""MinHash signatures and the keys of their bands (Broder 1997; LSH after Indyk and Motwani 1998).

Signatures equal those of datasketch 2's default scheme `affine32` bit by bit, given the same 32-bit
hashes: MurmurHash3's finalizer, then a * h + b modulo 2**32 with odd a. Here one permutation is
applied to the shingles of many documents at a time.
"""

import numpy as np
from numpy.typing import NDArray

from components.dedup.shingles import Shingles

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

EMPTY = np.uint32(2**32 - 1)
BAND_BASE = np.uint64(0x9E3779B97F4A7C15)


def permutations(num_permutations: int, seed: int) -> tuple[U32, U32]:
    """The factors (odd) and summands of `num_permutations` permutations of 0 ... 2**32 - 1."""
    generator = np.random.RandomState(seed)
    factors = generator.randint(0, 1 << 31, num_permutations, dtype=np.uint32)
    factors = factors * np.uint32(2) + np.uint32(1)
    return factors, generator.randint(0, 1 << 32, num_permutations, dtype=np.uint32)


def signatures(shingles: Shingles, factors: U32, summands: U32) -> U32:
    """[D, K] the least hash of each text's shingles under each of K permutations.

    The share of equal entries of two signatures estimates their Jaccard similarity J with standard
    deviation sqrt(J (1 - J) / K). A text without shingles has EMPTY everywhere.
    """
    filled = np.flatnonzero(shingles.sizes)
    result = np.full((len(shingles.sizes), len(factors)), EMPTY, np.uint32)
    if not len(filled):
        return result
    hashes = _fmix32((shingles.values & np.uint64(EMPTY)).astype(np.uint32))
    starts = shingles.first[filled]
    permuted = np.empty_like(hashes)
    for column, (factor, summand) in enumerate(zip(factors, summands, strict=True)):
        np.multiply(hashes, factor, out=permuted)
        np.add(permuted, summand, out=permuted)
        result[filled, column] = np.minimum.reduceat(permuted, starts)
    return result


def band_keys(signatures: U32, bands: int, rows: int) -> U64:
    """[D, bands] one 64-bit hash of the `rows` entries of each band.

    Two texts of similarity s agree in at least one with probability 1 - (1 - s**rows)**bands.
    """
    entries = signatures.reshape(-1, bands, rows).astype(np.uint64)
    keys = np.zeros(entries.shape[:2], np.uint64)
    for row in range(rows):
        keys = (keys ^ entries[:, :, row]) * BAND_BASE
        keys ^= keys >> np.uint64(29)
    return keys


def _fmix32(hashes: U32) -> U32:
    hashes = hashes ^ (hashes >> np.uint32(16))
    hashes *= np.uint32(0x85EBCA6B)
    hashes ^= hashes >> np.uint32(13)
    hashes *= np.uint32(0xC2B2AE35)
    hashes ^= hashes >> np.uint32(16)
    return hashes
