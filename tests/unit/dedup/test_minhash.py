"""Signatures and bands, against datasketch."""

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dedup.clusters import bucket_pairs
from components.dedup.minhash import EMPTY, band_keys, permutations, signatures
from components.dedup.shingles import Shingles, jaccard

VALUES = st.integers(0, 2**64 - 1)


def made(sets: list[set[int]]) -> Shingles:
    flat = [value for values in sets for value in sorted(values)]
    first = np.cumsum([0] + [len(values) for values in sets])
    return Shingles(np.array(flat, np.uint64), first)


def low_bits(value: int) -> int:
    return value & 0xFFFFFFFF


def sketch(values: set[int], num_perm: int, seed: int) -> MinHash:
    theirs = MinHash(num_perm=num_perm, seed=seed, hashfunc=low_bits)
    theirs.update_batch(sorted(values))
    return theirs


@settings(max_examples=50)
@given(st.lists(st.sets(VALUES, max_size=20), min_size=1, max_size=5), st.integers(0, 2**31 - 1))
def test_signatures_are_datasketchs_bit_by_bit(sets: list[set[int]], seed: int) -> None:
    ours = signatures(made(sets), *permutations(112, seed))
    for row, values in zip(ours, sets, strict=True):
        assert row.tolist() == sketch(values, 112, seed).hashvalues.tolist()


def test_a_text_without_shingles_has_the_empty_signature() -> None:
    ours = signatures(made([set(), {1}, set()]), *permutations(8, 1))
    assert (ours[[0, 2]] == EMPTY).all()
    assert (ours[1] != EMPTY).all()


@pytest.mark.parametrize("shared", [0, 100, 250, 400, 480])
def test_the_estimate_lies_within_five_standard_deviations(shared: int) -> None:
    generator = np.random.default_rng(shared)
    values = generator.integers(0, 2**64, 1000 - shared, dtype=np.uint64).tolist()
    one, other = set(values[:500]), set(values[500 - shared :])
    truth = jaccard(made([one]).values, made([other]).values)
    assert truth == pytest.approx(shared / (1000 - shared))
    ours = signatures(made([one, other]), *permutations(1024, 2402))
    estimate = (ours[0] == ours[1]).mean()
    assert abs(estimate - truth) <= 5 * np.sqrt(truth * (1 - truth) / 1024)


@pytest.mark.parametrize(("bands", "rows"), [(14, 8), (9, 13), (20, 2)])
def test_the_same_pairs_share_a_band_as_in_datasketchs_index(bands: int, rows: int) -> None:
    generator = np.random.default_rng(bands)
    base = generator.integers(0, 2**64, (6, 60), dtype=np.uint64)
    sets = []
    for row in base:  # copies of six sets, each with another share exchanged
        for num_kept in (60, 58, 55, 50, 40):
            fresh = generator.integers(0, 2**64, 60 - num_kept, dtype=np.uint64)
            sets.append(set(row[:num_kept].tolist()) | set(fresh.tolist()))
    index = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    sketches = [sketch(values, bands * rows, 7) for values in sets]
    for name, each in enumerate(sketches):
        index.insert(name, each)
    theirs = {
        (name, other)
        for name, each in enumerate(sketches)
        for other in index.query(each)
        if name < other
    }
    keys = band_keys(signatures(made(sets), *permutations(bands * rows, 7)), bands, rows)
    ours = {
        (min(pair), max(pair))
        for band in range(bands)
        for pairs in bucket_pairs(keys[:, band], max_neighbours=len(sets))
        for pair in map(tuple, pairs.tolist())
    }
    assert ours == theirs
    assert 6 <= len(ours) < len(sets) * (len(sets) - 1) / 2
