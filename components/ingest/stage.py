"""ingest: sources in; documents, conversations and rated responses out, with a manifest."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.addresses import shown
from components.contract import Json, Report, Share, Sink, StageIO
from components.errors import DataError
from components.ingest.crowd import Rater, SimulatedCrowd, read_personas
from components.ingest.endpoint import EndpointCrowd
from components.ingest.params import IngestParams, RatingsParams, SourceParams
from components.ingest.plots import plot_document_lengths, plot_votes
from components.ingest.ratings import Prompt, choose_prompts, rate
from components.ingest.reading import (
    LENGTH_BINS,
    Counts,
    Recipe,
    Unit,
    is_read,
    read_same_unit,
    read_unit,
)
from components.ingest.remembered import Remembered
from components.ingest.rules import Questions
from components.ingest.sources import Fetched, fetch
from components.ingest.spill import spilled
from components.ingest.units import units_from_json, units_of, units_to_json
from components.pool import map_ordered
from components.schemas import (
    CONVERSATIONS,
    DOCUMENTS,
    NUM_CATEGORIES,
    RATED_RESPONSES,
    SPLITS,
    content_id,
)
from components.section import read_yaml
from components.shards import iter_batches, write_shards
from components.sharing import assist_with, each_done, hear, tell

PROMPTS_PER_BATCH = 64
UNITS = "units.json"
HERE = Path(__file__).parent

Words = Mapping[str, Sequence[str]]


def run(params: IngestParams, io: StageIO, sink: Sink) -> Report:
    """Publish documents/, conversations/, rated_responses/ (each by split), then manifest.json.

    Raises UserError, DataError or InfraError in one line that names the source and the file.
    """
    started_at = time.monotonic()
    words = read_yaml(HERE / "phrasings.yaml")
    fetched = []
    for source in params.sources:
        sink.info(f"fetching {source.name} from {shown(source.location)}")
        fetched.append(fetch(source, io.work / "downloads", io.num_workers, sink))
    units = [
        unit
        for source, found in zip(params.sources, fetched, strict=True)
        for unit in units_of(source, found, params, io.work / "units")
    ]
    tell(io.share, UNITS, units_to_json(units, io.work))
    counts = _sum_by_source(units, _read_all(units, _recipe(params, words["questions"]), io, sink))
    _require_content(params.sources, fetched, counts)
    for name, one in counts.items():
        if one["skipped"]:
            sink.info(f"{name}: passed over {_told_skips(one)}")

    folders = [unit.folder for unit in units]
    rater = _rater(params.ratings, io)
    num_rows: dict[str, dict[str, int]] = {}
    for table, schema in (("documents", DOCUMENTS), ("conversations", CONVERSATIONS)):
        num_rows[table] = {
            split: write_shards(
                io.out / table / split,
                (part.select(schema.names) for part in spilled(folders, table, split)),
                schema,
                params.rows_per_shard,
            )
            for split in SPLITS
        }
    num_rows["rated_responses"] = {
        split: write_shards(
            io.out / "rated_responses" / split,
            chain(
                _rated(_prompts(folders, split, params.ratings, sink), rater, words, sink),
                spilled(folders, "rated_responses", split),
            ),
            RATED_RESPONSES,
            params.rows_per_shard,
        )
        for split in SPLITS
    }
    plot_document_lengths(
        io.reports / "document_lengths.png",
        LENGTH_BINS,
        {name: one["lengths"] for name, one in counts.items() if one["num_documents"]},
    )
    votes = _votes_by_candidate(io.out)
    plot_votes(io.reports / "votes.png", rater.name, votes)
    _write_manifest(io.out / "manifest.json", params.sources, fetched, counts, rater.name)
    return {f"num_{table}": of_split for table, of_split in num_rows.items()} | {
        "num_documents_of_source": {name: one["num_documents"] for name, one in counts.items()},
        "num_empty_pages": sum(one["num_empty_pages"] for one in counts.values()),
        "num_skipped": dict(sum((Counter(one["skipped"]) for one in counts.values()), Counter())),
        "num_chars": sum(one["num_chars"] for one in counts.values()),
        "test_fraction": num_rows["documents"]["test"] / sum(num_rows["documents"].values()),
        "num_vote_categories": max((len(counts) for counts in votes.values()), default=0),
        "prior_sum_error": _prior_error(io.out),
        "elapsed_s": round(time.monotonic() - started_at, 3),
    }


def assist(params: IngestParams, io: StageIO, share: Share, sink: Sink) -> None:
    """Read units of the files that the leader fetched."""
    units = units_from_json(hear(share, UNITS).read_bytes(), params, io.work)
    questions = read_yaml(HERE / "phrasings.yaml")["questions"]
    work = partial(read_same_unit, recipe=_recipe(params, questions))
    done = each_done(work, units, is_read, io.num_workers, share)
    assist_with(done, len(units), share, sink)


def _recipe(params: IngestParams, questions: Questions) -> Recipe:
    return Recipe(params.extractor, params.split, params.conversations, questions)


def _read_all(units: Sequence[Unit], recipe: Recipe, io: StageIO, sink: Sink) -> Iterator[Counts]:
    num_bytes = sum(file.num_bytes for unit in units for file in unit.files)
    done = num_documents = 0
    read = partial(read_unit, recipe=recipe)
    results = (
        map_ordered(read, units, io.num_workers)
        if io.share is None
        else map(read, each_done(read, units, is_read, io.num_workers, io.share))
    )
    for unit, found in zip(units, results, strict=True):
        done += sum(file.num_bytes for file in unit.files)
        num_documents += found["num_documents"]
        sink.progress(done, num_bytes, "bytes", documents=num_documents, source=unit.source.name)
        yield found


def _sum_by_source(units: Sequence[Unit], counts: Iterator[Counts]) -> dict[str, Counts]:
    sums: dict[str, Counter[str]] = {}
    skipped: dict[str, Counter[str]] = {}
    lengths: dict[str, NDArray[np.int64]] = {}
    for unit, found in zip(units, counts, strict=True):
        name = unit.source.name
        sums.setdefault(name, Counter()).update(
            {key: value for key, value in found.items() if key not in ("lengths", "skipped")}
        )
        skipped.setdefault(name, Counter()).update(found["skipped"])
        lengths[name] = lengths.get(name, 0) + np.asarray(found["lengths"])
    return {
        name: dict(total) | {"skipped": dict(skipped[name]), "lengths": lengths[name].tolist()}
        for name, total in sums.items()
    }


def _told_skips(counts: Counts) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in counts["skipped"].items())


def _require_content(
    sources: Sequence[SourceParams], fetched: Sequence[Fetched], counts: Mapping[str, Counts]
) -> None:
    for source, found in zip(sources, fetched, strict=True):
        one = counts[source.name]
        if not one[f"num_{source.content}"]:
            skips = f" (passed over: {_told_skips(one)})" if one["skipped"] else ""
            raise DataError(
                f"source {source.name}: no {source.content} in the {len(found.files):,} files of "
                f"{shown(source.location)}{skips}",
                "correct its location, format or extractor",
            )
    if not any(one["num_documents"] for one in counts.values()):
        raise DataError("the corpus is empty: no source has documents", "add one to ingest.sources")


def _rater(params: RatingsParams, io: StageIO) -> Rater:
    """The simulated crowd, or the endpoint that the environment names."""
    personas = read_personas(HERE / "personas.yaml")
    url = os.environ.get("HEADRACE_RATER_URL", "")
    if not url:
        return SimulatedCrowd(personas, params.prior_softening, io.seed)
    endpoint = EndpointCrowd(
        url, os.environ.get("HEADRACE_RATER_KEY", ""), params.endpoint_model, personas
    )
    identity = content_id(url, params.endpoint_model, *(one.description for one in personas))
    return Remembered(endpoint, io.work / "ratings.jsonl", identity)


def _prompts(
    folders: Sequence[Path], split: str, params: RatingsParams, sink: Sink
) -> list[Prompt]:
    num_wanted = getattr(params.num_prompts, split)
    prompts = choose_prompts(spilled(folders, "conversations", split), num_wanted)
    if len(prompts) < num_wanted:
        sink.info(f"only {len(prompts):,} of {num_wanted:,} {split} prompts can be rated")
    return prompts


def _rated(prompts: Sequence[Prompt], rater: Rater, words: Words, sink: Sink) -> Iterator[pa.Table]:
    for start in range(0, len(prompts), PROMPTS_PER_BATCH):
        yield rate(prompts[start : start + PROMPTS_PER_BATCH], rater, words)
        sink.progress(min(start + PROMPTS_PER_BATCH, len(prompts)), len(prompts), "prompts rated")


def _votes_by_candidate(out: Path) -> dict[str, NDArray[np.int64]]:
    """How often each category was chosen for each kind of candidate, over all splits."""
    votes: dict[str, NDArray[np.int64]] = {}
    for split in SPLITS:
        for batch in iter_batches(out / "rated_responses" / split, ["candidate", "votes"]):
            for row in batch.to_pylist():
                found = np.bincount(row["votes"], minlength=NUM_CATEGORIES)
                votes[row["candidate"]] = votes.get(row["candidate"], 0) + found
    return votes


def _prior_error(out: Path) -> float:
    """How far the sum of a prior lies from 1, at most."""
    furthest = 0.0
    for split in SPLITS:
        for batch in iter_batches(out / "rated_responses" / split, ["prior"]):
            priors = batch.column("prior").flatten().to_numpy().reshape(-1, NUM_CATEGORIES)
            furthest = max(furthest, float(np.abs(priors.sum(axis=1) - 1).max(initial=0)))
    return furthest


def _write_manifest(
    path: Path,
    sources: Sequence[SourceParams],
    fetched: Sequence[Fetched],
    counts: Mapping[str, Counts],
    rater: str,
) -> None:
    entries: list[Json] = [
        {
            "name": source.name,
            "kind": source.kind,
            "location": shown(source.location),
            "content": source.content,
            "licence": source.licence,
            "sha256": found.digest,
            "num_files": len(found.files),
            "num_bytes": sum(file.num_bytes for file in found.files),
        }
        | {
            name: value
            for name, value in counts[source.name].items()
            if name != "lengths" and value != {}  # nothing skipped, nothing said
        }
        for source, found in zip(sources, fetched, strict=True)
    ]
    manifest = {"rater_of_made_prompts": rater, "sources": entries}
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
