"""What is kept of each document while all are compared."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.dedup.minhash import U32, band_keys, signatures
from components.dedup.params import MinHashParams
from components.dedup.shingles import Shingles, join, shingle
from components.dedup.spill import U64, SpilledColumn, SpilledSets
from components.schemas import content_id
from components.shards import RowGroup, read_row_group

TEXTS_PER_BATCH = 128
"""The arrays of one batch then lie in the cache."""

HEX_NAME = "S32"  # ids and content hashes are 32 hex digits
Names = NDArray[np.bytes_]


class Piece(NamedTuple):
    """Some documents that one worker reads."""

    split: str
    group: RowGroup


@dataclass(frozen=True)
class Fingerprints:
    """Of the n documents of one piece."""

    ids: Names  # [n]
    contents: Names  # [n] hashes of the whole texts
    num_bytes: int
    shingles: Shingles | None
    keys: U64 | None  # [n, bands]
    held_out: Shingles | None  # n-grams of held-out documents, for decontamination


def fingerprint(
    piece: Piece,
    minhash: MinHashParams | None,
    permutations: tuple[U32, U32],
    held_out_ngram_words: int,
) -> Fingerprints:
    """Read one piece; `minhash` None and `held_out_ngram_words` 0 leave their parts out."""
    table = read_row_group(piece.group, ["id", "text"])
    texts: list[str] = table["text"].to_pylist()
    shingles = keys = held_out = None
    if minhash is not None:
        shingles, keys = _shingles_and_keys(texts, minhash, permutations)
    if held_out_ngram_words and piece.split != "train":
        held_out = join(shingle(batch, held_out_ngram_words) for batch in batches(texts))
    return Fingerprints(
        ids=np.array(table["id"].to_pylist(), HEX_NAME),
        contents=np.array([content_id(text) for text in texts], HEX_NAME),
        num_bytes=pc.sum(pc.binary_length(table["text"])).as_py() or 0,
        shingles=shingles,
        keys=keys,
        held_out=held_out,
    )


def _shingles_and_keys(
    texts: Sequence[str], minhash: MinHashParams, permutations: tuple[U32, U32]
) -> tuple[Shingles, U64]:
    parts = [shingle(batch, minhash.ngram_words) for batch in batches(texts)]
    keys = [
        band_keys(signatures(part, *permutations), minhash.bands, minhash.rows) for part in parts
    ]
    return join(parts), np.concatenate([np.zeros((0, minhash.bands), np.uint64), *keys])


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of TEXTS_PER_BATCH texts."""
    for start in range(0, len(texts), TEXTS_PER_BATCH):
        yield texts[start : start + TEXTS_PER_BATCH]


@dataclass(frozen=True)
class Catalogue:
    """D documents, in the order of the pieces; what grows with their texts is on disk."""

    ids: Names  # [D]
    contents: Names  # [D]
    is_held_out: NDArray[np.bool_]  # [D]
    split: NDArray[np.int8]  # [D] number of the split in `splits`
    splits: tuple[str, ...]
    num_bytes: int
    bands: list[U64]  # [bands][D]
    shingles: Shingles
    held_out: Shingles  # of the held-out documents, which come first


def gather(
    pieces: Sequence[Piece],
    fingerprints: Iterable[Fingerprints],
    splits: tuple[str, ...],
    num_bands: int,
    folder: Path,
) -> Catalogue:
    """Join the pieces' fingerprints; files go to `folder`. Held-out pieces come before training."""
    bands = [SpilledColumn(folder / f"band-{band:03d}.u64") for band in range(num_bands)]
    shingles = SpilledSets(folder / "shingles.u64")
    held_out = SpilledSets(folder / "held-out.u64")
    ids, contents, split = [np.zeros(0, HEX_NAME)], [np.zeros(0, HEX_NAME)], [np.zeros(0, np.int8)]
    num_bytes = 0
    for piece, found in zip(pieces, fingerprints, strict=True):
        ids.append(found.ids)
        contents.append(found.contents)
        split.append(np.full(len(found.ids), splits.index(piece.split), np.int8))
        num_bytes += found.num_bytes
        if found.shingles is not None and found.keys is not None:
            shingles.append(found.shingles.values, found.shingles.sizes)
            for band, column in enumerate(bands):
                column.append(found.keys[:, band])
        if found.held_out is not None:
            held_out.append(found.held_out.values, found.held_out.sizes)
    return Catalogue(
        ids=np.concatenate(ids),
        contents=np.concatenate(contents),
        is_held_out=np.concatenate(split) != splits.index("train"),
        split=np.concatenate(split),
        splits=splits,
        num_bytes=num_bytes,
        bands=[column.mapped() for column in bands],
        shingles=Shingles(*shingles.mapped()),
        held_out=Shingles(*held_out.mapped()),
    )
