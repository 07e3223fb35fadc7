"""One unit of work: some files of one source, read, extracted, split and turned into rows.

A unit's rows go to Arrow files under the stage's work folder, one for each table and split, and
its counts beside them. The folder appears whole or not at all, so a stage that is started again
reads on where it stopped; and memory stays flat, for a worker holds one group of pages.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from components.contract import Json
from components.ingest import api_models, rules
from components.ingest.extract import html_to_text
from components.ingest.params import ConversationsParams, SourceParams, SplitFractions
from components.ingest.rules import Exchange, Questions
from components.ingest.sources import SourceFile
from components.ingest.split import choose, split_of
from components.schemas import CONVERSATIONS, DOCUMENTS, SPLITS, content_id

EXCHANGES = CONVERSATIONS.append(pa.field("other_answer", pa.string()))
"""`other_answer`: to the same rule, from another training document of the group; empty if none."""

SCHEMAS = {"documents": DOCUMENTS, "conversations": EXCHANGES}
PAGES_PER_GROUP = 256
LENGTH_BINS = np.logspace(0, 7, 71)
"""Edges of the length histogram: ten bins for each power of ten, in characters."""

Row = dict[str, object]
Counts = dict[str, Json]


@dataclass(frozen=True)
class Unit:
    """Files that one worker reads in one go."""

    source: SourceParams
    files: tuple[SourceFile, ...]
    folder: Path
    """Where its rows go; named by all that decides what they are."""


@dataclass(frozen=True)
class Recipe:
    """What becomes of a page."""

    extractor: str
    split: SplitFractions
    conversations: ConversationsParams
    questions: Questions


@dataclass(frozen=True)
class Entry:
    """A document, its split, and the exchanges made from it."""

    document: Row
    split: str
    exchanges: Sequence[Exchange]


def read_unit(unit: Unit, recipe: Recipe) -> Counts:
    """Fill `unit.folder` unless an earlier attempt did; return its counts."""
    counts_path = unit.folder / "counts.json"
    if not counts_path.exists():
        partial = unit.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "counts.json").write_text(json.dumps(_write(unit, recipe, partial)))
        partial.rename(unit.folder)
    counts: Counts = json.loads(counts_path.read_text())
    return counts


def spilled(folders: Iterable[Path], table: str, split: str) -> Iterator[pa.Table]:
    """The rows that the units left, in the units' order, a batch at a time."""
    for folder in folders:
        with pa.memory_map(str(folder / f"{table}-{split}.arrow")) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(index)])


def _write(unit: Unit, recipe: Recipe, folder: Path) -> Counts:
    writers = {
        (table, split): pa.ipc.new_file(str(folder / f"{table}-{split}.arrow"), schema)
        for table, schema in SCHEMAS.items()
        for split in SPLITS
    }
    num_documents = num_empty = num_chars = 0
    lengths = np.zeros(len(LENGTH_BINS) - 1, dtype=np.int64)
    for group in _groups(unit, recipe):
        entries = [entry for entry in group if entry.document["text"]]
        chars = [len(str(entry.document["text"])) for entry in entries]
        num_documents += len(entries)
        num_empty += len(group) - len(entries)
        num_chars += sum(chars)
        lengths += np.histogram(chars, LENGTH_BINS)[0]
        for split in SPLITS:
            documents = [entry.document for entry in entries if entry.split == split]
            rows = list(conversation_rows(entries, split))
            for table, found in (("documents", documents), ("conversations", rows)):
                if found:
                    writers[table, split].write_table(
                        pa.Table.from_pylist(found, schema=SCHEMAS[table])
                    )
    for writer in writers.values():
        writer.close()
    return {
        "num_documents": num_documents,
        "num_empty_pages": num_empty,
        "num_chars": num_chars,
        "lengths": lengths.tolist(),
    }


def conversation_rows(entries: Sequence[Entry], split: str) -> Iterator[Row]:
    """The conversations of a group's documents of one split, each with another document's answer.

    The other answer always comes from a training document, so that no held-out text gets into
    what is trained on, and differs from the right one.
    """
    others: dict[str, list[tuple[str, Exchange]]] = {}
    for entry in entries:
        if entry.split == "train":
            for exchange in entry.exchanges:
                found = (str(entry.document["id"]), exchange)
                others.setdefault(exchange.rule, []).append(found)
    for entry in entries:
        if entry.split != split:
            continue
        document_id = str(entry.document["id"])
        for exchange in entry.exchanges:
            row_id = content_id(document_id, exchange.rule, exchange.question, exchange.answer)
            yield {
                "id": row_id,
                "document_id": document_id,
                "rule": exchange.rule,
                "source": entry.document["source"],
                "messages": [
                    {"role": "user", "content": exchange.question},
                    {"role": "assistant", "content": exchange.answer},
                ],
                "other_answer": _other(
                    others.get(exchange.rule, []), document_id, exchange, row_id
                ),
            }


def _other(
    others: list[tuple[str, Exchange]], document_id: str, asked: Exchange, row_id: str
) -> str:
    """The answer of one of `others`, chosen by content: another document, topic and answer."""
    start = choose(len(others), "other answer", row_id) if others else 0
    for other_id, other in others[start:] + others[:start]:
        if other_id != document_id and other.topic != asked.topic and other.answer != asked.answer:
            return other.answer
    return ""


def _groups(unit: Unit, recipe: Recipe) -> Iterator[list[Entry]]:
    for file in unit.files:
        yield [
            _operation_entry(operation, unit.source, recipe)
            for operation in api_models.read_operations(file.path)
        ]


def _operation_entry(
    operation: api_models.Operation, source: SourceParams, recipe: Recipe
) -> Entry:
    settings = recipe.conversations
    text = html_to_text(api_models.render(operation), recipe.extractor)
    exchanges = rules.operation_exchanges(
        operation,
        recipe.questions,
        settings.parameters_per_operation,
        settings.min_answer_chars,
        settings.max_answer_chars,
    )
    return _entry(
        source,
        recipe,
        text=text,
        title=f"{operation.service}: {operation.name}",
        url=f"{source.location}/{operation.path}",
        exchanges=list(exchanges),
    )


def _entry(
    source: SourceParams,
    recipe: Recipe,
    *,
    text: str,
    title: str,
    url: str,
    exchanges: Sequence[Exchange],
) -> Entry:
    document: Row = {
        "id": content_id(source.name, url, text),
        "text": text,
        "title": title,
        "url": url,
        "source": source.name,
        "licence": source.licence,
    }
    return Entry(document, split_of(text, recipe.split.model_dump()), exchanges)
