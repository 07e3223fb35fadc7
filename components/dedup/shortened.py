"""What is left of documents whose repeated lines go: perhaps nothing, perhaps another one's text.

Two pages that differ in nothing but a notice each are no near duplicates where the notices are
long, and one text once the notices are gone.
"""

from collections.abc import Sequence

import numpy as np

from components.dedup.clusters import best_of_cluster
from components.dedup.duplicates import precedence
from components.dedup.fingerprints import HEX_NAME, Catalogue, Names, Piece
from components.dedup.publishing import EMPTIED, KEPT, SAME_REST, Lines, Verdicts
from components.schemas import content_id
from components.shards import read_row_group

NOTHING = content_id("").encode()


def judge_shortened(
    pieces: Sequence[Piece], catalogue: Catalogue, verdicts: Verdicts, lines: Lines
) -> None:
    """Mark in `verdicts` what loses every line (EMPTIED) or is left as a copy (SAME_REST).

    Of equal rests the held-out one stays before the training one, then the smallest id.
    """
    contents = _contents_left(pieces, catalogue, lines)
    verdicts.reason[(verdicts.reason == KEPT) & (contents == NOTHING)] = EMPTIED
    left = np.flatnonzero(verdicts.reason == KEPT)
    _, labels = np.unique(contents[left], return_inverse=True)
    stays = left[best_of_cluster(labels.astype(np.int64), precedence(catalogue)[left])]
    goes = left != stays
    verdicts.reason[left[goes]] = SAME_REST
    verdicts.matched[left[goes]] = stays[goes]
    verdicts.similarity[left[goes]] = 1.0


def _contents_left(pieces: Sequence[Piece], catalogue: Catalogue, lines: Lines) -> Names:
    """[D] hashes of the texts without the lines that go; only what changes is read again."""
    contents = catalogue.contents.copy()
    is_shorter = np.zeros(len(contents), bool)
    is_shorter[np.searchsorted(lines.first, np.flatnonzero(lines.goes), side="right") - 1] = True
    start = 0
    for piece in pieces:
        rows = np.arange(start, start + piece.group.num_rows)
        start += piece.group.num_rows
        which = is_shorter[rows]
        if which.any():
            texts = read_row_group(piece.group, ["text"]).filter(which)["text"].to_pylist()
            rests = lines.left_of(texts, rows[which])
            contents[rows[which]] = np.array([content_id(rest) for rest in rests], HEX_NAME)
    return contents
