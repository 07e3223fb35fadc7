"""The verdicts become tables."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.dedup.fingerprints import Catalogue, Names, Piece
from components.dedup.paragraphs import without
from components.dedup.spill import Ints
from components.schemas import DOCUMENTS
from components.shards import ShardWriter, read_row_group

KEPT, EXACT, NEAR, CONTAMINATED, EMPTIED, SAME_REST = range(6)
REASONS = ("", "exact", "near", "contaminated", "emptied", "same_rest")

REJECTED = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),  # of REASONS
        ("matched_id", pa.string()),  # the copy that stays, or the held-out document given away
        ("similarity", pa.float64()),  # Jaccard to the copy, overlap with the held-out one
    ]
)
CLUSTERS = pa.schema(
    [
        ("cluster_id", pa.string()),  # id of the document that stays
        ("id", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),  # "" for the one that stays
        ("jaccard", pa.float64()),  # to the one that stays; a chain may reach below the threshold
    ]
)


@dataclass(frozen=True)
class Verdicts:
    """Of D documents."""

    reason: NDArray[np.int8]
    """[D] index into REASONS."""
    matched: Ints
    """[D] the other document it is about, -1 for none."""
    similarity: NDArray[np.float64]
    """[D] to that document; 0 for none."""


@dataclass(frozen=True)
class Lines:
    """The lines of D documents that may go."""

    goes: NDArray[np.bool_]
    """[P]"""
    first: Ints
    """[D + 1] document d has goes[first[d]:first[d + 1]]."""
    min_chars: int

    def left_of(self, texts: Sequence[str], rows: Ints) -> list[str]:
        """What is left of the `texts` of documents `rows`."""
        ends = zip(self.first[rows].tolist(), self.first[rows + 1].tolist(), strict=True)
        return [
            without(text, self.goes[start:end], self.min_chars)
            for text, (start, end) in zip(texts, ends, strict=True)
        ]


def write_documents(
    folder: Path,
    pieces: Sequence[Piece],
    verdicts: Verdicts,
    lines: Lines | None,
    rows_per_shard: int,
) -> Iterator[int]:
    """Write `folder`/<split>/ piece by piece; yields how many bytes of text of each were written."""
    offset = 0
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShardWriter(folder / split, DOCUMENTS, rows_per_shard))
            for split in dict.fromkeys(piece.split for piece in pieces)
        }
        for piece in pieces:
            rows = np.arange(offset, offset + piece.group.num_rows)
            offset += piece.group.num_rows
            is_kept = verdicts.reason[rows] == KEPT
            kept = read_row_group(piece.group, DOCUMENTS.names).filter(is_kept)
            if lines is not None:
                kept = _with_texts(kept, lines.left_of(kept["text"].to_pylist(), rows[is_kept]))
            writers[piece.split].write(kept)
            yield pc.sum(pc.binary_length(kept["text"])).as_py() or 0


def _with_texts(table: pa.Table, texts: Sequence[str]) -> pa.Table:
    column = table.schema.get_field_index("text")
    return table.set_column(column, "text", pa.array(texts, pa.string()))


def rejected_table(catalogue: Catalogue, verdicts: Verdicts) -> pa.Table:
    """Every document that went, in the catalogue's order."""
    rows = np.flatnonzero(verdicts.reason != KEPT)
    return pa.table(
        [
            _strings(catalogue.ids[rows]),
            _splits(catalogue, rows),
            [REASONS[reason] for reason in verdicts.reason[rows]],
            _strings(
                np.where(verdicts.matched[rows] < 0, b"", catalogue.ids[verdicts.matched[rows]])
            ),
            verdicts.similarity[rows],
        ],
        schema=REJECTED,
    )


def clusters_table(catalogue: Catalogue, stays: Ints, verdicts: Verdicts) -> pa.Table:
    """Every document that has a copy, cluster by cluster, the one that stays first."""
    is_copied = np.bincount(stays, minlength=len(stays))[stays] > 1
    rows = np.flatnonzero(is_copied)
    rows = rows[np.lexsort((rows, rows != stays[rows], stays[rows]))]
    is_kept = rows == stays[rows]
    return pa.table(
        [
            _strings(catalogue.ids[stays[rows]]),
            _strings(catalogue.ids[rows]),
            _splits(catalogue, rows),
            np.where(is_kept, "", np.array(REASONS)[verdicts.reason[rows]]),
            np.where(is_kept, 1.0, verdicts.similarity[rows]),
        ],
        schema=CLUSTERS,
    )


def _strings(names: Names) -> pa.Array:
    return pa.array(np.char.decode(names, "ascii").tolist(), pa.string())


def _splits(catalogue: Catalogue, rows: Ints) -> pa.Array:
    return pa.array([catalogue.splits[number] for number in catalogue.split[rows]], pa.string())
