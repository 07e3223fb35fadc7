"""The second look at what duplicates left: held-out text, and lines said elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.dedup.decontamination import load_index, overlaps
from components.dedup.fingerprints import Piece, batches
from components.dedup.paragraphs import paragraph_hashes
from components.dedup.params import DecontaminationParams, ParagraphsParams
from components.dedup.shingles import join, shingle
from components.dedup.spill import U64, Ints
from components.shards import read_row_group


class PieceLeft(NamedTuple):
    """A piece and which of its n documents are left."""

    piece: Piece
    is_left: NDArray[np.bool_]


@dataclass(frozen=True)
class Inspection:
    """Of the n documents of one piece; nothing of those that are not left."""

    overlap: NDArray[np.float64]
    """[n] largest overlap coefficient with a held-out document; 0 for a held-out one."""
    held_out: Ints
    """[n] number of that held-out document, -1 for none."""
    lines: U64
    """Hashes of the lines that may go."""
    num_lines: Ints
    """[n]"""


def inspect(
    piece_left: PieceLeft,
    decontamination: DecontaminationParams | None,
    index_folder: Path,
    paragraphs: ParagraphsParams | None,
) -> Inspection:
    """Read the documents that are left once more."""
    piece, is_left = piece_left
    overlap, held_out = np.zeros(len(is_left)), np.full(len(is_left), -1, np.int64)
    lines, num_lines = np.zeros(0, np.uint64), np.zeros(len(is_left), np.int64)
    texts = read_row_group(piece.group, ["text"]).filter(is_left)["text"].to_pylist()
    if decontamination is not None and piece.split == "train":
        words = decontamination.ngram_words
        shingles = join(shingle(batch, words) for batch in batches(texts))
        overlap[is_left], held_out[is_left] = overlaps(shingles, load_index(index_folder))
    if paragraphs is not None:
        lines, num_lines[is_left] = paragraph_hashes(texts, paragraphs.min_chars)
    return Inspection(overlap, held_out, lines, num_lines)
