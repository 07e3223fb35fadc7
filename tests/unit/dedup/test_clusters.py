"""Clusters from buckets: complete, and never quadratic."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dedup.clusters import best_of_cluster, bucket_pairs, cluster


def always(pairs: np.ndarray) -> np.ndarray:
    return np.ones(len(pairs), bool)


def groups(labels: np.ndarray) -> set[frozenset[int]]:
    return {
        frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels).tolist()
    }


def plain_clusters(bands: list[list[int]], similar: set[frozenset[int]]) -> set[frozenset[int]]:
    found = [{document} for document in range(len(bands[0]))]
    for keys in bands:
        for one in range(len(keys)):
            for other in range(one):
                if keys[one] == keys[other] and frozenset((one, other)) in similar:
                    mine = next(group for group in found if one in group)
                    theirs = next(group for group in found if other in group)
                    if mine is not theirs:
                        found.remove(theirs)
                        mine |= theirs
    return {frozenset(group) for group in found}


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[list[int]], set[frozenset[int]]]:
    size = draw(st.integers(1, 9))
    bands = draw(
        st.lists(st.lists(st.integers(0, 3), min_size=size, max_size=size), min_size=1, max_size=3)
    )
    pairs = [frozenset((a, b)) for a in range(size) for b in range(a)]
    return bands, set(draw(st.lists(st.sampled_from(pairs)))) if pairs else set()


@settings(max_examples=150)
@given(corpora())
def test_clusters_are_the_components_of_candidate_pairs_that_are_similar(corpus) -> None:
    bands, pairs = corpus

    def similar(candidates: np.ndarray) -> np.ndarray:
        return np.array([frozenset(pair) in pairs for pair in candidates.tolist()], bool)

    size = len(bands[0])
    keys = [np.array(band, np.uint64) for band in bands]
    assert groups(cluster(size, keys, similar, max_neighbours=size)) == plain_clusters(bands, pairs)


def test_a_bucket_of_copies_costs_one_comparison_a_document_in_all_bands_together() -> None:
    num_documents, compared = 20_000, 0

    def similar(pairs: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += len(pairs)
        return always(pairs)

    bands = [np.zeros(num_documents, np.uint64)] * 14
    labels = cluster(num_documents, bands, similar, max_neighbours=32)
    assert len(np.unique(labels)) == 1
    assert compared == num_documents - 1


def test_a_bucket_of_unlike_documents_costs_max_neighbours_comparisons_each() -> None:
    pairs = list(bucket_pairs(np.zeros(1000, np.uint64), max_neighbours=5))
    assert [len(each) for each in pairs] == [999, 998, 997, 996, 995]


def test_a_small_bucket_is_compared_completely() -> None:
    keys = np.array([7, 1, 7, 2, 7, 2, 9], np.uint64)
    pairs = np.concatenate(list(bucket_pairs(keys, max_neighbours=32)))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2), (0, 4), (2, 4), (3, 5)]


def test_no_document_and_no_candidate_are_no_trouble() -> None:
    nothing = np.zeros(0, np.uint64)
    assert cluster(0, [nothing], always, 4).tolist() == []
    assert cluster(3, [np.arange(3, dtype=np.uint64)], always, 4).tolist() == [0, 1, 2]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.randoms())
def test_the_least_rank_of_each_cluster_is_its_best(labels: list[int], random) -> None:
    rank = list(range(len(labels)))
    random.shuffle(rank)
    best = best_of_cluster(np.array(labels), np.array(rank))
    for document, label in enumerate(labels):
        members = [other for other, its in enumerate(labels) if its == label]
        assert best[document] == min(members, key=lambda member: rank[member])
