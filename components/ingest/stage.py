"""ingest: sources in; documents, conversations and rated responses out, with a manifest."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from ruamel.yaml import YAML

from components.contract import Json, Report, Sink, StageIO
from components.errors import DataError
from components.ingest.crowd import Rater, SimulatedCrowd, read_personas
from components.ingest.params import IngestParams, SourceParams
from components.ingest.ratings import choose_prompts, rate
from components.ingest.reading import Counts, Recipe, Unit, read_unit, spilled
from components.ingest.sources import Fetched, SourceFile, fetch
from components.pool import map_ordered
from components.schemas import CONVERSATIONS, DOCUMENTS, RATED_RESPONSES, SPLITS, content_id
from components.shards import write_shards

UNIT_BYTES = 1 << 20
UNIT_FILES = 128
PROMPTS_PER_BATCH = 128
HERE = Path(__file__).parent

Item = TypeVar("Item")


def run(params: IngestParams, io: StageIO, sink: Sink) -> Report:
    """Publish documents/, conversations/, rated_responses/ (each by split), then manifest.json."""
    started_at = time.monotonic()
    fetched = _fetch_all(params, io, sink)
    words = YAML(typ="safe", pure=True).load(HERE / "phrasings.yaml")
    units = [
        unit
        for source, found in zip(params.sources, fetched, strict=True)
        for unit in units_of(source, found, io.work / "units", _identity(params))
    ]
    counts = _read_all(units, params, words["questions"], io.num_workers, sink)
    counts_of_source = _sum_by_source(units, counts)
    for source, found in zip(params.sources, fetched, strict=True):
        if not counts_of_source[source.name]["num_documents"]:
            raise DataError(
                f"source {source.name}: no text in the {len(found.files)} files of "
                f"{source.location}",
                "correct its location, format or extractor",
            )
    folders = [unit.folder for unit in units]
    num_rows = {
        table: {
            split: write_shards(
                io.out / table / split,
                (part.select(schema.names) for part in spilled(folders, table, split)),
                schema,
                params.rows_per_shard,
            )
            for split in SPLITS
        }
        for table, schema in (("documents", DOCUMENTS), ("conversations", CONVERSATIONS))
    }
    rater: Rater = SimulatedCrowd(
        read_personas(HERE / "personas.yaml"), params.ratings.prior_softening, io.seed
    )
    num_rows["rated_responses"] = {}
    for split in SPLITS:
        prompts = choose_prompts(
            spilled(folders, "conversations", split), getattr(params.ratings.num_prompts, split)
        )
        rated = (rate(batch, rater, words) for batch in batched(prompts, PROMPTS_PER_BATCH))
        num_rows["rated_responses"][split] = write_shards(
            io.out / "rated_responses" / split, rated, RATED_RESPONSES, params.rows_per_shard
        )
    _write_manifest(io.out / "manifest.json", params.sources, fetched, counts_of_source)
    return {
        "num_documents": num_rows["documents"],
        "num_conversations": num_rows["conversations"],
        "num_rated_responses": num_rows["rated_responses"],
        "num_empty_pages": sum(one["num_empty_pages"] for one in counts_of_source.values()),
        "elapsed_s": round(time.monotonic() - started_at, 3),
    }


def _fetch_all(params: IngestParams, io: StageIO, sink: Sink) -> list[Fetched]:
    fetched = []
    for done, source in enumerate(params.sources):
        sink.progress(done, len(params.sources), "sources", now=source.name)
        fetched.append(fetch(source, io.work / "downloads", io.num_workers))
    sink.progress(len(fetched), len(fetched), "sources")
    return fetched


def units_of(source: SourceParams, found: Fetched, folder: Path, identity: str) -> Iterator[Unit]:
    """The source's files in runs of about UNIT_BYTES, in order; a larger file is a unit alone."""
    run: list[SourceFile] = []
    key = content_id(identity, source.model_dump_json(), found.digest)
    index = 0
    for file in found.files:
        if run and (
            sum(one.num_bytes for one in run) + file.num_bytes > UNIT_BYTES
            or len(run) == UNIT_FILES
        ):
            yield Unit(source, tuple(run), folder / f"{key}-{index:06d}")
            run, index = [], index + 1
        run.append(file)
    yield Unit(source, tuple(run), folder / f"{key}-{index:06d}")


def _identity(params: IngestParams) -> str:
    return params.model_dump_json(exclude={"sources", "ratings", "rows_per_shard"})


def _read_all(
    units: Sequence[Unit],
    params: IngestParams,
    questions: dict[str, list[str]],
    num_workers: int,
    sink: Sink,
) -> list[Counts]:
    recipe = Recipe(params.extractor, params.split, params.conversations, questions)
    num_files = sum(len(unit.files) for unit in units)
    done, num_documents, counts = 0, 0, []
    for unit, found in zip(
        units, map_ordered(partial(read_unit, recipe=recipe), units, num_workers), strict=True
    ):
        done += len(unit.files)
        num_documents += found["num_documents"]
        counts.append(found)
        sink.progress(done, num_files, "files", documents=num_documents)
    return counts


def _sum_by_source(units: Sequence[Unit], counts: Sequence[Counts]) -> dict[str, Counts]:
    sums: dict[str, Counter[str]] = {}
    for unit, found in zip(units, counts, strict=True):
        total = sums.setdefault(unit.source.name, Counter())
        total.update({name: value for name, value in found.items() if name != "lengths"})
    return {name: dict(total) for name, total in sums.items()}


def _write_manifest(
    path: Path,
    sources: Sequence[SourceParams],
    fetched: Sequence[Fetched],
    counts: dict[str, Counts],
) -> None:
    entries: list[Json] = [
        {
            "name": source.name,
            "kind": source.kind,
            "location": source.location,
            "content": source.content,
            "licence": source.licence,
            "sha256": found.digest,
            "num_files": len(found.files),
            "num_bytes": sum(file.num_bytes for file in found.files),
            **counts[source.name],
        }
        for source, found in zip(sources, fetched, strict=True)
    ]
    path.write_text(json.dumps({"sources": entries}, indent=2, ensure_ascii=False) + "\n")


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Runs of `size` items; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
