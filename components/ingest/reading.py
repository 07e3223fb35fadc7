"""One unit of work: some files of one source, read, extracted, split and turned into rows.

A unit's rows are spilled to a folder of its own, its counts beside them. The folder appears whole
or not at all, so a stage that is started again reads on where it stopped; and memory stays flat,
for a worker holds one group of pages.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from components.contract import Json
from components.errors import DataError
from components.ingest import api_models, own_rows, rules
from components.ingest.extract import html_to_text
from components.ingest.formats import Page, read_pages
from components.ingest.params import ConversationsParams, SourceParams, SplitFractions
from components.ingest.rules import Exchange, Questions
from components.ingest.sources import SourceFile, file_sha256
from components.ingest.spill import Row, spill
from components.ingest.split import choose, split_of
from components.piece_files import whole_folder
from components.schemas import SPLITS, content_id

COUNTS = "counts.json"
PAGES_PER_GROUP = 256
LENGTH_BINS = np.logspace(0, 7, 71)
"""Edges of the length histogram: ten bins for each power of ten, in characters."""

Counts = dict[str, Json]
NOTHING: Counts = {
    "num_documents": 0,
    "num_conversations": 0,
    "num_ratings": 0,
    "num_empty_pages": 0,
    "num_chars": 0,
    "skipped": {},
    "lengths": [0] * (len(LENGTH_BINS) - 1),
}


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
    """Fill `unit.folder` unless an earlier attempt or another machine did; return its counts."""
    if not is_read(unit):
        with whole_folder(unit.folder) as folder:
            (folder / COUNTS).write_text(json.dumps(_write(unit, recipe, folder)))
    counts: Counts = json.loads((unit.folder / COUNTS).read_text())
    return counts


def read_same_unit(unit: Unit, recipe: Recipe) -> None:
    """`read_unit` on another machine than the one that found the files; its own may differ.

    Raises DataError then.
    """
    for file in unit.files:
        if file.sha256 and file_sha256(file.path) != file.sha256:
            raise DataError(
                f"source {unit.source.name}: {file.name} is another file here than on the leader",
                "put sources on the volume that all machines see",
            )
    read_unit(unit, recipe)


def is_read(unit: Unit) -> bool:
    return (unit.folder / COUNTS).exists()


def _write(unit: Unit, recipe: Recipe, folder: Path) -> Counts:
    skipped: Counter[str] = Counter()
    match unit.source.content:
        case "documents":
            return _write_documents(unit, recipe, folder, skipped)
        case "conversations":
            groups = (
                [row]
                for file in unit.files
                for row in own_rows.conversations(unit.source, file, skipped)
            )
            table, text_column = "conversations", "messages"
        case "ratings":
            groups = (rows for file in unit.files for rows in own_rows.ratings(unit.source, file))
            table, text_column = "rated_responses", "prompt"
    num_rows = _write_own(table, text_column, groups, recipe, folder)
    return NOTHING | {
        f"num_{unit.source.content}": num_rows,
        "skipped": dict(sorted(skipped.items())),
    }


def _write_documents(unit: Unit, recipe: Recipe, folder: Path, skipped: Counter[str]) -> Counts:
    num_documents = num_conversations = num_empty = num_chars = 0
    lengths = np.zeros(len(LENGTH_BINS) - 1, dtype=np.int64)
    with spill(folder) as write:
        for group in _groups(unit, recipe, skipped):
            entries = [entry for entry in group if entry.document["text"]]
            chars = [len(str(entry.document["text"])) for entry in entries]
            num_documents += len(entries)
            num_empty += len(group) - len(entries)
            num_chars += sum(chars)
            lengths += np.histogram(chars, LENGTH_BINS)[0]
            for split in SPLITS:
                documents = [entry.document for entry in entries if entry.split == split]
                write("documents", split, documents)
                conversations = list(conversation_rows(entries, split))
                write("conversations", split, conversations)
                num_conversations += len(conversations)
    return NOTHING | {
        "num_documents": num_documents,
        "num_conversations": num_conversations,
        "num_empty_pages": num_empty,
        "num_chars": num_chars,
        "skipped": dict(sorted(skipped.items())),
        "lengths": lengths.tolist(),
    }


def _write_own(
    table: str, text_column: str, groups: Iterator[list[Row]], recipe: Recipe, folder: Path
) -> int:
    """Rows that belong together (the responses to one prompt) go to the same split."""
    num_rows = 0
    with spill(folder) as write:
        while batch := list(islice(groups, PAGES_PER_GROUP)):
            of_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
            for rows in batch:
                split = split_of(json.dumps(rows[0][text_column]), recipe.split.model_dump())
                of_split[split].extend(rows)
                num_rows += len(rows)
            for split, rows in of_split.items():
                write(table, split, rows)
    return num_rows


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


def _groups(unit: Unit, recipe: Recipe, skipped: Counter[str]) -> Iterator[list[Entry]]:
    """A service's operations, or a run of pages: what other answers are drawn from."""
    extractor = unit.source.extractor or recipe.extractor
    for file in unit.files:
        if unit.source.kind == "botocore":
            yield [
                _operation_entry(operation, unit.source, recipe, extractor)
                for operation in api_models.read_operations(file.path)
            ]
    if unit.source.kind != "botocore":
        pages = (
            page
            for file in unit.files
            for page in read_pages(unit.source, file, extractor, skipped)
        )
        while batch := list(islice(pages, PAGES_PER_GROUP)):
            yield [_page_entry(page, unit.source, recipe) for page in batch]


def _operation_entry(
    operation: api_models.Operation, source: SourceParams, recipe: Recipe, extractor: str
) -> Entry:
    settings = recipe.conversations
    url = f"{source.location}/{operation.path}"
    title = f"{operation.service}: {operation.name}"
    text = html_to_text(api_models.render(operation), extractor)
    exchanges = rules.operation_exchanges(
        operation,
        recipe.questions,
        settings.parameters_per_operation,
        settings.min_answer_chars,
        settings.max_answer_chars,
    )
    return _entry(Page(url, url, title, text), source, recipe, list(exchanges))


def _page_entry(page: Page, source: SourceParams, recipe: Recipe) -> Entry:
    settings = recipe.conversations
    exchange = rules.page_exchange(
        page.title,
        page.text,
        recipe.questions,
        settings.min_answer_chars,
        settings.max_answer_chars,
    )
    return _entry(page, source, recipe, [exchange] if exchange else [])


def _entry(
    page: Page, source: SourceParams, recipe: Recipe, exchanges: Sequence[Exchange]
) -> Entry:
    document: Row = {
        "id": content_id(source.name, page.place, page.text),
        "text": page.text,
        "title": page.title,
        "url": page.url,
        "source": source.name,
        "licence": source.licence,
    }
    return Entry(document, split_of(page.text, recipe.split.model_dump()), exchanges)
