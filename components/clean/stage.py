"""clean: documents in; the ones worth training on out, corrected and without personal data."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from components.clean.cleaning import (
    REJECTED,
    Counts,
    Piece,
    clean_piece,
    score_table,
)
from components.clean.decision import (
    KEPT,
    Rules,
    RulesOfLanguage,
    Scores,
    fit_thresholds,
    rules_by_language,
)
from components.clean.packing import CLEANED, rules_from_json, rules_to_json
from components.clean.params import METRICS, CleanParams, FitParams
from components.clean.plots import draw_languages, draw_lengths, draw_reasons
from components.clean.scoring import Scored
from components.contract import Json, Report, Share, Sink, StageIO
from components.errors import DataError
from components.pool import map_ordered
from components.schemas import CONVERSATIONS, DOCUMENTS, RATED_RESPONSES, SPLITS
from components.shards import RowGroup, ShardWriter, read_row_group, row_groups
from components.sharing import assist_map, hear, map_shared, tell

SCHEMAS = {
    "documents": DOCUMENTS,
    "conversations": CONVERSATIONS,
    "rated_responses": RATED_RESPONSES,
}

RULES = "rules.json"


def run(params: CleanParams, io: StageIO, sink: Sink) -> Report:
    """Publish documents/ by split, rejected/, and ingest's other tables without personal data."""
    started_at = time.monotonic()
    pieces = _pieces(io)
    rules = dict(rules_by_language(params.rules, params.language_rules))
    if params.fit is not None:
        sink.info(f"fitting thresholds on {params.fit.num_documents:,} training documents")
        rules |= _fit(params, params.fit, rules, pieces, io.num_workers)
    tell(io.share, RULES, rules_to_json(rules))
    counts = _clean(params, rules, pieces, io, sink)
    of_split = {split: counts["documents", split] for split in SPLITS}
    _refuse_an_empty_result(of_split["train"])
    total = sum(of_split.values(), Counts())
    elsewhere = sum(
        (each.pii for (table, _), each in counts.items() if table != "documents"), Counter()
    )
    draw_languages(io.reports / "languages.png", total.languages)
    draw_lengths(io.reports / "lengths.png", total.lengths_kept, total.lengths_removed)
    draw_reasons(io.reports / "reasons.png", total.reasons, total.num_documents)
    return _report(total, of_split, elsewhere) | {
        "thresholds": {language or "every other": dict(own) for language, own in rules.items()}
        if params.fit is not None
        else {},
        "elapsed_s": round(time.monotonic() - started_at, 3),
    }


def assist(params: CleanParams, io: StageIO, share: Share, sink: Sink) -> None:
    """Clean pieces by the rules that the leader fitted."""
    rules = rules_from_json(hear(share, RULES).read_bytes())
    work = partial(clean_piece, params=params, rules=rules)
    assist_map(work, _pieces(io), io.num_workers, share, CLEANED, sink)


def _pieces(io: StageIO) -> list[Piece]:
    return [
        Piece(table, split, group)
        for table in SCHEMAS
        for split in SPLITS
        for group in row_groups(io.inputs["ingest"] / table / split)
    ]


def _clean(
    params: CleanParams,
    rules: RulesOfLanguage,
    pieces: Sequence[Piece],
    io: StageIO,
    sink: Sink,
) -> dict[tuple[str, str], Counts]:
    """Write every table; what happened, by table and split."""
    counts = {(table, split): Counts() for table in SCHEMAS for split in SPLITS}
    num_documents = sum(piece.group.num_rows for piece in pieces if piece.table == "documents")
    num_done = 0
    work = partial(clean_piece, params=params, rules=rules)
    with ExitStack() as stack:
        writers = {
            (table, split): stack.enter_context(
                ShardWriter(io.out / table / split, schema, params.rows_per_shard)
            )
            for table, schema in SCHEMAS.items()
            for split in SPLITS
        }
        rejected = stack.enter_context(
            ShardWriter(io.out / "rejected", REJECTED, params.rows_per_shard)
        )
        cleaned_pieces = map_shared(work, pieces, io.num_workers, io.share, CLEANED)
        for piece, cleaned in zip(pieces, cleaned_pieces, strict=True):
            key = (piece.table, piece.split)
            writers[key].write(cleaned.kept)
            if cleaned.rejected is not None:
                rejected.write(cleaned.rejected)
            counts[key] += cleaned.counts
            if piece.table == "documents":  # the rest takes seconds
                num_done += piece.group.num_rows
                kept = 100 * cleaned.counts.num_kept / piece.group.num_rows
                sink.progress(num_done, num_documents, "documents", kept=f"{kept:.1f}%")
    return counts


def _fit(
    params: CleanParams,
    fit: FitParams,
    rules: RulesOfLanguage,
    pieces: Sequence[Piece],
    num_workers: int,
) -> dict[str, Rules]:
    """Fitted rules of each language with enough documents in the sample.

    Whether a document is in the sample depends on its id alone, so not on the order of sources.
    """
    groups = [
        piece.group for piece in pieces if (piece.table, piece.split) == ("documents", "train")
    ]
    share = fit.num_documents / max(1, sum(group.num_rows for group in groups))
    work = partial(score_sample, params=params, share=share)
    samples = list(map_ordered(work, groups, num_workers))
    languages = np.array([language for sample in samples for language in sample.languages], str)
    scores: Scores = {
        metric: np.concatenate([np.zeros(0), *(sample.scores[metric] for sample in samples)])
        for metric in METRICS
    }
    fitted: dict[str, Rules] = {}
    for language, num_documents in sorted(Counter(languages.tolist()).items()):
        if num_documents >= fit.min_documents:
            of_language: Scores = {
                name: values[languages == language] for name, values in scores.items()
            }
            own = rules.get(language, rules[""])
            fitted[language] = fit_thresholds(of_language, own, fit.q_low, fit.q_high)
    return fitted


def score_sample(group: RowGroup, params: CleanParams, share: float) -> Scored:
    """Scores of the documents whose id, read as a fraction of the largest, lies below `share`."""
    table = read_row_group(group, ["id", "text"])
    chosen = [int(name[:8], 16) < share * 2**32 for name in table["id"].to_pylist()]
    return score_table(table.filter(chosen), params)


def _refuse_an_empty_result(train: Counts) -> None:
    if train.num_kept:
        return
    if not train.num_documents:
        raise DataError("no training document", "add a source, or give `train` a share of them")
    reason, number = max(train.reasons.items(), key=lambda item: (item[1], item[0]))
    raise DataError(
        f"every one of {train.num_documents:,} training documents was rejected, "
        f"{number:,} of them for {reason}",
        f"loosen clean.rules.{reason.rpartition('_')[0]}"
        if reason.endswith(("_low", "_high"))
        else "see clean.language.keep and clean.lines, and what ingest extracted",
    )


def _report(total: Counts, counts: Mapping[str, Counts], pii: Counter[str]) -> dict[str, Json]:
    return {
        "num_documents": total.num_documents,
        "num_kept": total.num_kept,
        "num_kept_by_split": {split: of_split.num_kept for split, of_split in counts.items()},
        "kept_fraction": round(total.num_kept / total.num_documents, 6),
        "num_chars": total.num_chars,
        "kept_char_fraction": round(total.num_chars_kept / max(1, total.num_chars), 6),
        "removed": _sorted({k: n for k, n in total.reasons.items() if k != KEPT}),
        "removed_lines": _sorted(total.removed_lines),
        "languages": _sorted(total.languages),
        "replaced_in_documents": _sorted(total.pii),
        "replaced_in_conversations_and_ratings": _sorted(pii),
    }


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    """Largest first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
