"""From buckets of equal band keys to clusters of near duplicates, without a quadratic step."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]
Similar = Callable[[Ints], NDArray[np.bool_]]


def cluster(
    num_documents: int, bands: Iterable[U64], similar: Similar, max_neighbours: int
) -> Ints:
    """[D] the number of each document's cluster: connected by candidate pairs that are `similar`.

    `bands` yields the keys [D] of one band after the other; documents with an equal key share a
    bucket and are candidates. Within a bucket each is compared with the `max_neighbours` that
    follow it, so a bucket costs its size times that at most; up to `max_neighbours + 1` documents
    this is every pair. The direct followers come first, and pairs that are in one cluster
    already are not compared: n copies of one text cost n - 1 comparisons in all, not n in each band.
    `similar` takes pairs [P, 2] of document numbers.
    """
    labels = np.arange(num_documents)
    edges = [np.zeros((0, 2), np.int64)]
    for keys in bands:
        for pairs in bucket_pairs(keys, max_neighbours):
            apart = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
            found = apart[similar(apart)]
            if len(found):
                edges.append(found)
                labels = _components(np.concatenate(edges), num_documents)
                edges = [np.column_stack((np.arange(num_documents), labels_to_first(labels)))]
    return labels


def bucket_pairs(keys: U64, max_neighbours: int) -> Iterator[Ints]:
    """Pairs [P, 2] of documents with equal keys: the direct followers, then the ones after, ..."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    shared = np.zeros(len(keys) + 1, bool)  # with the one before
    np.equal(ordered[1:], ordered[:-1], out=shared[1:-1])
    member = shared[:-1] | shared[1:]
    order, ordered = order[member], ordered[member]
    for distance in range(1, max_neighbours + 1):
        equal = np.flatnonzero(ordered[distance:] == ordered[: len(ordered) - distance])
        if not len(equal):
            return
        yield np.column_stack((order[equal], order[equal + distance]))


def labels_to_first(labels: Ints) -> Ints:
    """[D] the first document of each one's cluster."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def best_of_cluster(labels: Ints, rank: Ints) -> Ints:
    """[D] the document of each one's cluster with the least rank; ranks are distinct."""
    order = np.argsort(rank)
    _, first, inverse = np.unique(labels[order], return_index=True, return_inverse=True)
    best = np.empty(len(labels), np.int64)
    best[order] = order[first[inverse]]
    return best


def _components(edges: Ints, num_documents: int) -> Ints:
    graph = coo_array(
        (np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])),
        shape=(num_documents, num_documents),
    )
    labels: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
