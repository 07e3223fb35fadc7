"""The two passes over the texts: each a map over pieces, which other machines can compute as well.

The second depends on all of the first: on which documents are left, and on the held-out ones among
them, whose index lies in a folder.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.contract import Share, Sink
from components.dedup.fingerprints import Fingerprints, Piece, fingerprint
from components.dedup.inspection import Inspection, PieceLeft, inspect
from components.dedup.minhash import permutations
from components.dedup.packing import FINGERPRINTS, INSPECTIONS
from components.dedup.params import DedupParams
from components.shards import row_groups
from components.sharing import assist_map, hear, tell

INDEX = "index"
LEFT = "left.bits"


def pieces_of(documents: Path, splits: Sequence[str]) -> list[Piece]:
    return [Piece(split, group) for split in splits for group in row_groups(documents / split)]


def fingerprinting(params: DedupParams, seed: int) -> Callable[[Piece], Fingerprints]:
    """The first pass's work on a piece."""
    minhash, decontamination = params.minhash, params.decontamination
    num_permutations = minhash.bands * minhash.rows if minhash is not None else 0
    return partial(
        fingerprint,
        minhash=minhash,
        permutations=permutations(num_permutations, seed),
        held_out_ngram_words=decontamination.ngram_words if decontamination is not None else 0,
    )


def inspecting(params: DedupParams, folder: Path) -> Callable[[PieceLeft], Inspection]:
    """The second pass's work on a piece; the index lies in `folder`."""
    return partial(
        inspect,
        decontamination=params.decontamination,
        index_folder=folder / INDEX,
        paragraphs=params.paragraphs,
    )


def is_inspected(params: DedupParams) -> bool:
    """Whether there is a second pass."""
    return params.decontamination is not None or params.paragraphs is not None


def pieces_left(pieces: Sequence[Piece], is_left: NDArray[np.bool_]) -> list[PieceLeft]:
    """The pieces with their part of [D] `is_left`."""
    ends = np.cumsum([piece.group.num_rows for piece in pieces], dtype=np.int64)
    return [
        PieceLeft(piece, is_left[end - piece.group.num_rows : end])
        for piece, end in zip(pieces, ends, strict=True)
    ]


def tell_left(share: Share | None, is_left: NDArray[np.bool_]) -> None:
    tell(share, LEFT, np.packbits(is_left).tobytes())


def assist_passes(
    pieces: Sequence[Piece],
    params: DedupParams,
    seed: int,
    num_workers: int,
    share: Share,
    sink: Sink,
) -> None:
    """Compute pieces of both passes."""
    assist_map(fingerprinting(params, seed), pieces, num_workers, share, FINGERPRINTS, sink)
    if is_inspected(params):
        bits = np.frombuffer(hear(share, LEFT).read_bytes(), np.uint8)
        is_left = np.unpackbits(bits).astype(bool)
        left = pieces_left(pieces, is_left)
        assist_map(inspecting(params, share.folder), left, num_workers, share, INSPECTIONS, sink)
