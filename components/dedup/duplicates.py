"""Which documents say the same, and which of them stays."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.contract import Sink
from components.dedup.clusters import best_of_cluster, cluster
from components.dedup.fingerprints import Catalogue
from components.dedup.params import MinHashParams
from components.dedup.shingles import jaccard
from components.dedup.spill import U64, Ints


@dataclass(frozen=True)
class Duplicates:
    """Of D documents."""

    stays: Ints
    """[D] the document of each one's cluster that stays: itself, if it does."""
    is_exact: NDArray[np.bool_]
    """[D] another document with the very same text was preferred."""
    num_comparisons: int
    """Candidate pairs whose true similarity was computed."""


def find_duplicates(catalogue: Catalogue, minhash: MinHashParams | None, sink: Sink) -> Duplicates:
    """Exact duplicates by content hash; of one of each, near duplicates by MinHash LSH.

    Of a cluster the held-out document stays before the training one, then the smallest id.
    """
    num_documents = len(catalogue.ids)
    rank = precedence(catalogue)
    _, contents = np.unique(catalogue.contents, return_inverse=True)
    first = best_of_cluster(contents.astype(np.int64), rank)
    is_exact = first != np.arange(num_documents)
    if minhash is None:
        return Duplicates(first, is_exact, 0)
    # A text without a word has no shingle, hence nothing to be compared by.
    distinct = np.flatnonzero(~is_exact & (catalogue.shingles.sizes > 0))
    num_comparisons = 0

    def similar(pairs: Ints) -> NDArray[np.bool_]:
        nonlocal num_comparisons
        num_comparisons += len(pairs)
        scores = similarities(catalogue, distinct[pairs[:, 0]], distinct[pairs[:, 1]])
        return scores >= minhash.min_jaccard

    def bands() -> Iterator[U64]:
        for done, keys in enumerate(catalogue.bands):
            sink.progress(done, minhash.bands, "bands", compared=num_comparisons)
            yield keys[distinct]
        sink.progress(minhash.bands, minhash.bands, "bands", compared=num_comparisons)

    labels = cluster(len(distinct), bands(), similar, minhash.max_neighbours)
    stays = np.arange(num_documents)
    stays[distinct] = distinct[best_of_cluster(labels, rank[distinct])]
    return Duplicates(stays[first], is_exact, num_comparisons)


def precedence(catalogue: Catalogue) -> Ints:
    """[D] the place of each document among all: of copies the one with the least place stays."""
    rank = np.empty(len(catalogue.ids), np.int64)
    rank[np.lexsort((catalogue.ids, catalogue.split))] = np.arange(len(rank))
    return rank


def similarities(catalogue: Catalogue, one: Ints, other: Ints) -> NDArray[np.float64]:
    """[P] true Jaccard similarity of the shingle sets of pairs of documents."""
    values, first = catalogue.shingles.values, catalogue.shingles.first
    return np.array(
        [
            jaccard(values[first[a] : first[a + 1]], values[first[b] : first[b + 1]])
            for a, b in zip(one.tolist(), other.tolist(), strict=True)
        ],
        np.float64,
    )
