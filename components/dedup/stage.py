"""dedup: documents in; one of each text out, and nothing of the held-out ones in training.

The order is: exact duplicates, near duplicates, decontamination, repeated paragraphs, then exact
duplicates among what these leave. Whole documents come first, because without their shared
paragraphs two copies no longer look alike, and the second would stay as a fragment. Where copies
lie on both sides of the split the held-out one stays and the training one goes, so the evaluation
never depends on what is trained on; among copies of one split the one with the smallest id, which
is a hash of its content, stays. Conversations and rated responses follow their document, and go
from training if they give a held-out answer (`followers.py`).
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from components.contract import Json, Report, Share, Sink, StageIO
from components.dedup.answers import Part, digest_part
from components.dedup.decontamination import build_index
from components.dedup.duplicates import Duplicates, find_duplicates, similarities
from components.dedup.fingerprints import Catalogue, Piece, gather
from components.dedup.followers import REASONS as FOLLOWER_REASONS
from components.dedup.followers import (
    count_reasons,
    judge_followers,
    parts_of,
    write_followers,
)
from components.dedup.packing import FINGERPRINTS, INSPECTIONS
from components.dedup.paragraphs import repeated
from components.dedup.params import DedupParams
from components.dedup.passes import (
    INDEX,
    assist_passes,
    fingerprinting,
    inspecting,
    is_inspected,
    pieces_left,
    pieces_of,
    tell_left,
)
from components.dedup.plots import draw_cluster_sizes
from components.dedup.publishing import (
    CLUSTERS,
    CONTAMINATED,
    EXACT,
    KEPT,
    NEAR,
    REASONS,
    REJECTED,
    Lines,
    Verdicts,
    clusters_table,
    rejected_table,
    write_documents,
)
from components.dedup.shortened import judge_shortened
from components.dedup.spill import SpilledSets
from components.errors import DataError
from components.piece_files import whole_folder
from components.pool import map_ordered
from components.schemas import SPLITS
from components.shards import write_shards
from components.sharing import map_shared

HELD_OUT_FIRST = tuple(reversed(SPLITS))

Item = TypeVar("Item")


def run(params: DedupParams, io: StageIO, sink: Sink) -> Report:
    """Publish documents/, conversations/, rated_responses/ by split, rejected/ and clusters/."""
    started_at = time.monotonic()
    spill = io.work / "spill"
    shutil.rmtree(spill, ignore_errors=True)  # left by an attempt that failed
    spill.mkdir(parents=True)
    pieces = _pieces(io)
    catalogue = _fingerprint(pieces, params, spill, io, sink)
    duplicates = find_duplicates(catalogue, params.minhash, sink)
    verdicts = _verdicts_on_duplicates(catalogue, duplicates)
    lines = _inspect(pieces, catalogue, verdicts, params, spill, io, sink)
    if lines is not None:
        judge_shortened(pieces, catalogue, verdicts, lines)
    written = write_documents(io.out / "documents", pieces, verdicts, lines, params.rows_per_shard)
    num_bytes_kept = sum(_with_progress(pieces, written, sink, "documents written"))
    _refuse_an_empty_result(catalogue, verdicts)
    followers = _write_followers(catalogue, verdicts, params, spill, io, sink)
    rejected = rejected_table(catalogue, verdicts)
    write_shards(io.out / "rejected", [rejected], REJECTED, params.rows_per_shard)
    clusters = clusters_table(catalogue, duplicates.stays, verdicts)
    write_shards(io.out / "clusters", [clusters], CLUSTERS, params.rows_per_shard)
    sizes = np.unique(duplicates.stays, return_counts=True)[1]
    draw_cluster_sizes(io.reports / "cluster_sizes.png", sizes)
    shutil.rmtree(spill)
    elapsed_s = time.monotonic() - started_at
    return _report(catalogue, verdicts, duplicates, sizes) | {
        "kept_byte_fraction": round(num_bytes_kept / max(1, catalogue.num_bytes), 6),
        "num_lines_removed": 0 if lines is None else int(lines.goes.sum()),
        **followers,
        "elapsed_s": round(elapsed_s, 3),
        "megabytes_per_s": round(catalogue.num_bytes / 1e6 / elapsed_s, 3),
    }


def assist(params: DedupParams, io: StageIO, share: Share, sink: Sink) -> None:
    """Compute pieces of both passes over the texts; what compares them all is the leader's."""
    assist_passes(_pieces(io), params, io.seed, io.num_workers, share, sink)


def _pieces(io: StageIO) -> list[Piece]:
    return pieces_of(io.inputs["clean"] / "documents", HELD_OUT_FIRST)


def _fingerprint(
    pieces: Sequence[Piece], params: DedupParams, spill: Path, io: StageIO, sink: Sink
) -> Catalogue:
    """The first pass over the texts."""
    work = fingerprinting(params, io.seed)
    found = map_shared(work, pieces, io.num_workers, io.share, FINGERPRINTS)
    found = _with_progress(pieces, found, sink, "documents read")
    num_bands = params.minhash.bands if params.minhash is not None else 0
    return gather(pieces, found, HELD_OUT_FIRST, num_bands, spill)


def _verdicts_on_duplicates(catalogue: Catalogue, duplicates: Duplicates) -> Verdicts:
    num_documents = len(catalogue.ids)
    goes = duplicates.stays != np.arange(num_documents)
    reason = np.where(goes, np.where(duplicates.is_exact, EXACT, NEAR), KEPT).astype(np.int8)
    similarity = np.zeros(num_documents)
    similarity[goes] = 1.0
    if catalogue.bands:
        rows = np.flatnonzero(goes & (catalogue.contents != catalogue.contents[duplicates.stays]))
        similarity[rows] = similarities(catalogue, rows, duplicates.stays[rows])
    return Verdicts(reason, np.where(goes, duplicates.stays, -1), similarity)


def _inspect(
    pieces: Sequence[Piece],
    catalogue: Catalogue,
    verdicts: Verdicts,
    params: DedupParams,
    spill: Path,
    io: StageIO,
    sink: Sink,
) -> Lines | None:
    """The second pass: mark contaminated documents in `verdicts`, find the lines that go."""
    decontamination, paragraphs = params.decontamination, params.paragraphs
    if not is_inspected(params):
        return None
    is_left = verdicts.reason == KEPT
    folder = spill if io.share is None else io.share.folder
    if decontamination is not None:
        index = build_index(
            catalogue.held_out,
            is_left[catalogue.is_held_out],
            decontamination.max_documents_per_ngram,
        )
        with whole_folder(folder / INDEX) as index_folder:
            index.save(index_folder)
    tell_left(io.share, is_left)
    items = pieces_left(pieces, is_left)
    work = inspecting(params, folder)
    found = map_shared(work, items, io.num_workers, io.share, INSPECTIONS)
    lines = SpilledSets(spill / "lines.u64")
    starts = np.cumsum([0] + [piece.group.num_rows for piece in pieces])
    for start, inspection in zip(
        starts, _with_progress(pieces, found, sink, "documents inspected"), strict=False
    ):
        lines.append(inspection.lines, inspection.num_lines)
        if decontamination is not None:
            leaks = np.flatnonzero(inspection.overlap >= decontamination.min_overlap)
            verdicts.reason[start + leaks] = CONTAMINATED
            verdicts.matched[start + leaks] = inspection.held_out[leaks]
            verdicts.similarity[start + leaks] = inspection.overlap[leaks]
    if paragraphs is None:
        return None
    hashes, first = lines.mapped()
    counts = np.repeat(verdicts.reason == KEPT, np.diff(first))
    goes = repeated(hashes, counts, paragraphs.min_occurrences)
    return Lines(goes, first, paragraphs.min_chars)


def _write_followers(
    catalogue: Catalogue,
    verdicts: Verdicts,
    params: DedupParams,
    spill: Path,
    io: StageIO,
    sink: Sink,
) -> dict[str, Json]:
    """Publish conversations/ and rated_responses/; count what stays and what goes."""
    decontamination = params.decontamination
    parts = parts_of(io.inputs["clean"], HELD_OUT_FIRST)
    work = partial(
        digest_part,
        min_answer_chars=decontamination.min_answer_chars if decontamination is not None else None,
    )
    digests = map_ordered(work, parts, io.num_workers)
    digests = _with_progress(parts, digests, sink, "conversations and responses read")
    reason = judge_followers(parts, digests, catalogue.ids[verdicts.reason == KEPT], spill)
    write_followers(io.out, parts, reason, params.rows_per_shard)
    report: dict[str, Json] = {}
    for table, by_split in count_reasons(parts, reason).items():
        report[f"num_{table}"] = {split: counts.pop("", 0) for split, counts in by_split.items()}
        report[f"removed_{table}"] = {
            split: {name: counts[name] for name in FOLLOWER_REASONS if name}
            for split, counts in by_split.items()
        }
    return report


def _with_progress(
    pieces: Sequence[Piece | Part], results: Iterable[Item], sink: Sink, unit: str
) -> Iterator[Item]:
    """The results of the pieces as they come, counting rows."""
    total = sum(piece.group.num_rows for piece in pieces)
    done = 0
    for piece, result in zip(pieces, results, strict=True):
        done += piece.group.num_rows
        sink.progress(done, total, unit)
        yield result


def _refuse_an_empty_result(catalogue: Catalogue, verdicts: Verdicts) -> None:
    is_training = ~catalogue.is_held_out
    if (verdicts.reason[is_training] == KEPT).any():
        return
    reasons = Counter(REASONS[reason] for reason in verdicts.reason[is_training].tolist())
    found = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
    raise DataError(
        f"none of {is_training.sum():,} training documents is left: {found or 'there was none'}",
        "loosen dedup.minhash.min_jaccard or dedup.decontamination.min_overlap, or add text",
    )


def _report(
    catalogue: Catalogue, verdicts: Verdicts, duplicates: Duplicates, sizes: NDArray[np.int64]
) -> dict[str, Json]:
    num_documents = len(catalogue.ids)
    is_kept = verdicts.reason == KEPT
    is_copy = duplicates.stays != np.arange(num_documents)
    across = catalogue.is_held_out != catalogue.is_held_out[duplicates.stays]
    return {
        "num_documents": num_documents,
        "num_kept": int(is_kept.sum()),
        "num_kept_by_split": {
            split: int((is_kept & (catalogue.split == number)).sum())
            for number, split in reversed(list(enumerate(catalogue.splits)))
        },
        "kept_fraction": round(float(is_kept.mean()), 6),
        "removed": {
            name: int((verdicts.reason == number).sum())
            for number, name in enumerate(REASONS)
            if number != KEPT
        },
        "num_clusters": int((sizes > 1).sum()),
        "largest_cluster_documents": int(sizes.max()),
        "largest_cluster_fraction": round(float(sizes.max()) / num_documents, 6),
        "duplicate_fraction": round(float(is_copy.mean()), 6),
        "num_training_copies_of_held_out": int((is_copy & across).sum()),
        "num_comparisons": duplicates.num_comparisons,
        "num_bytes": catalogue.num_bytes,
    }
