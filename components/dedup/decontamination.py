"""Training documents that give a held-out document away.

As GPT-3 (Brown et al. 2020, appendix C) by shared 13-grams, but document against document: the
overlap coefficient is the share of the n-grams of the smaller of the two that the other has too. A
short held-out page inside a long training document counts as much as the reverse. The training
document goes and the held-out one stays, so that what is measured on does not depend on what is
trained on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.dedup.shingles import Shingles
from components.dedup.spill import U64, Ints

FILES = ("grams", "first", "documents", "sizes")


@dataclass(frozen=True)
class HeldOutIndex:
    """Which of H held-out documents have which n-gram: G n-grams, P pairs of both."""

    grams: U64
    """[G] ascending."""
    first: Ints
    """[G + 1] gram g is in documents[first[g]:first[g + 1]]."""
    documents: Ints
    """[P]"""
    sizes: Ints
    """[H] n-grams of each document."""

    def save(self, folder: Path) -> None:
        for name in FILES:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)


def load_index(folder: Path) -> HeldOutIndex:
    """An index that was saved, mapped into memory: many workers share it."""
    return HeldOutIndex(
        *(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in FILES)
    )


def build_index(
    held_out: Shingles, is_kept: NDArray[np.bool_], max_documents_per_ngram: int
) -> HeldOutIndex:
    """Index the kept ones of H held-out documents, without n-grams that too many of them have.

    Such an n-gram is boilerplate: it says nothing about which document leaked, and would make the
    work quadratic.
    """
    document = np.repeat(np.arange(len(is_kept)), held_out.sizes)
    wanted = is_kept[document]
    grams, document = held_out.values[wanted], document[wanted]
    order = np.argsort(grams, kind="stable")
    grams, document = grams[order], document[order]
    distinct, count = np.unique(grams, return_counts=True)
    rare = count <= max_documents_per_ngram
    return HeldOutIndex(
        grams=distinct[rare],
        first=np.concatenate(([0], np.cumsum(count[rare]))),
        documents=document[np.repeat(rare, count)],
        sizes=held_out.sizes,
    )


def overlaps(shingles: Shingles, index: HeldOutIndex) -> tuple[NDArray[np.float64], Ints]:
    """[D] the largest overlap coefficient of each document, 0..1, and [D] the held-out document.

    Of equal ones the first; -1 where nothing is shared.
    """
    num_documents = len(shingles.sizes)
    best, owner = np.zeros(num_documents), np.full(num_documents, -1, np.int64)
    if not len(index.grams):
        return best, owner
    at = np.searchsorted(index.grams, shingles.values)
    at[at == len(index.grams)] = 0
    hit = np.flatnonzero(index.grams[at] == shingles.values)
    of = np.searchsorted(shingles.first, hit, side="right") - 1
    num_owners = index.first[at[hit] + 1] - index.first[at[hit]]
    within = np.arange(num_owners.sum()) - np.repeat(np.cumsum(num_owners) - num_owners, num_owners)
    held_out = index.documents[np.repeat(index.first[at[hit]], num_owners) + within]
    pair, shared = np.unique(
        np.repeat(of, num_owners) * len(index.sizes) + held_out, return_counts=True
    )
    document, held_out = np.divmod(pair, len(index.sizes))
    smaller = np.minimum(shingles.sizes[document], index.sizes[held_out])
    coefficient = shared / smaller
    order = np.lexsort((held_out, -coefficient, document))
    found, leader = np.unique(document[order], return_index=True)
    best[found], owner[found] = coefficient[order][leader], held_out[order][leader]
    return best, owner
