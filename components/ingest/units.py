"""How the files of the sources are dealt out to workers, and to other machines."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from components.ingest.params import IngestParams, SourceParams
from components.ingest.reading import Unit
from components.ingest.sources import Fetched, SourceFile
from components.schemas import content_id

UNIT_BYTES = 1 << 20
"""Enough that starting a unit costs nothing beside it; few enough that workers end together."""
UNIT_FILES = 128


def units_of(
    source: SourceParams, found: Fetched, params: IngestParams, folder: Path
) -> Iterator[Unit]:
    """The source's files in runs of about UNIT_BYTES, in order; a larger file is a unit alone.

    A unit's folder lies in `folder`. Its name tells the source, its digest and the rules that the
    rows are made by, so what is found there is what would be made.
    """
    rules = params.model_dump_json(include={"extractor", "split", "conversations"})
    key = content_id(rules, source.model_dump_json(), found.digest)
    for index, files in enumerate(_runs(found.files)):
        yield Unit(source, files, folder / f"{key}-{index:06d}")


def units_to_json(units: Sequence[Unit], work: Path) -> bytes:
    """What another machine cannot know: which files there are, and what is in them.

    A file in `work` is told from there, where another may have another way to it.
    """
    return json.dumps(
        [
            {
                "source": unit.source.name,
                "files": [
                    asdict(file) | {"path": str(_from(work, file.path))} for file in unit.files
                ],
                "folder": str(_from(work, unit.folder)),
            }
            for unit in units
        ]
    ).encode()


def units_from_json(text: bytes, params: IngestParams, work: Path) -> list[Unit]:
    sources = {source.name: source for source in params.sources}
    return [
        Unit(
            sources[unit["source"]],
            tuple(SourceFile(**(file | {"path": work / file["path"]})) for file in unit["files"]),
            work / unit["folder"],
        )
        for unit in json.loads(text)
    ]


def _from(folder: Path, path: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path.absolute()


def _runs(files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, ...]]:
    run: list[SourceFile] = []
    num_bytes = 0
    for file in files:
        if run and (num_bytes + file.num_bytes > UNIT_BYTES or len(run) == UNIT_FILES):
            yield tuple(run)
            run, num_bytes = [], 0
        run.append(file)
        num_bytes += file.num_bytes
    yield tuple(run)
