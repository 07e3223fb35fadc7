"""What one worker does with one piece of a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.clean.decision import EMPTY, KEPT, TOO_LONG, RulesOfLanguage, decide
from components.clean.lines import correct_lines
from components.clean.params import METRICS, CleanParams, PiiParams
from components.clean.pii import replace_pii
from components.clean.plots import LENGTH_BIN_EDGES
from components.clean.scoring import CHARS_PER_BATCH, Scored, batches_of_chars, score_texts
from components.schemas import CONVERSATIONS, DOCUMENTS, RATED_RESPONSES
from components.shards import RowGroup, read_row_group

REJECTED = pa.schema(
    [
        *DOCUMENTS,
        ("split", pa.string()),
        ("reason", pa.string()),
        ("language", pa.string()),
        ("scores", pa.struct([(metric, pa.float64()) for metric in METRICS])),
    ]
)


def _no_lengths() -> NDArray[np.int64]:
    return np.zeros(len(LENGTH_BIN_EDGES) - 1, np.int64)


@dataclass
class Counts:
    """What happened to some documents."""

    num_documents: int = 0
    num_chars: int = 0
    num_chars_kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    removed_lines: Counter[str] = field(default_factory=Counter)
    pii: Counter[str] = field(default_factory=Counter)
    lengths_kept: NDArray[np.int64] = field(default_factory=_no_lengths)
    lengths_removed: NDArray[np.int64] = field(default_factory=_no_lengths)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            **{
                each.name: getattr(self, each.name) + getattr(other, each.name)
                for each in fields(self)
            }
        )

    @property
    def num_kept(self) -> int:
        return self.reasons[KEPT]


class Piece(NamedTuple):
    """A part of one of ingest's tables that one worker cleans."""

    table: str
    split: str
    group: RowGroup


@dataclass(frozen=True)
class Cleaned:
    """The rows of one piece, in its order."""

    kept: pa.Table
    rejected: pa.Table | None
    """Only documents are ever rejected."""
    counts: Counts


def clean_piece(piece: Piece, params: CleanParams, rules: RulesOfLanguage) -> Cleaned:
    """Documents are judged and anonymised, conversations and rated responses anonymised."""
    match piece.table:
        case "documents":
            return _clean_documents(piece, params, rules)
        case "conversations":
            return _anonymise_conversations(piece.group, params.pii)
        case _:
            return _anonymise_rated_responses(piece.group, params.pii)


def score_table(table: pa.Table, params: CleanParams) -> Scored:
    """Scores of a table's documents, in batches that bound the memory.

    A document above `max_document_chars` is measured as if it were empty.
    """
    texts = [
        text if len(text) <= params.max_document_chars else "" for text in _column(table, "text")
    ]
    correct = partial(
        correct_lines,
        rules=params.lines.rules,
        min_words=params.lines.min_words,
        max_word_chars=params.lines.max_word_chars,
        max_upper_case_fraction=params.lines.max_upper_case_fraction,
        max_call_words=params.lines.max_call_words,
    )
    batches = [
        score_texts(
            texts[rows],
            correct,
            language_max_chars=params.language.max_chars,
            short_line_chars=params.short_line_chars,
        )
        for rows in batches_of_chars([len(text) for text in texts], CHARS_PER_BATCH)
    ]
    return Scored(
        texts=[text for batch in batches for text in batch.texts],
        languages=[language for batch in batches for language in batch.languages],
        scores={
            metric: np.concatenate([np.zeros(0), *(batch.scores[metric] for batch in batches)])
            for metric in METRICS
        },
        removed_lines=sum((batch.removed_lines for batch in batches), Counter()),
    )


def _clean_documents(piece: Piece, params: CleanParams, rules: RulesOfLanguage) -> Cleaned:
    """Score, decide, and anonymise what stays."""
    table = read_row_group(piece.group, DOCUMENTS.names)
    lengths = [len(text) for text in _column(table, "text")]
    scored = score_table(table, params)
    faults = [
        TOO_LONG if length > params.max_document_chars else KEPT if text else EMPTY
        for length, text in zip(lengths, scored.texts, strict=True)
    ]
    reasons = decide(
        scored.scores,
        scored.languages,
        faults,
        keep_languages=params.language.keep,
        rules_of=rules,
    )
    is_kept = np.array([reason == KEPT for reason in reasons], bool)
    kept, removed = np.flatnonzero(is_kept), np.flatnonzero(~is_kept)
    texts, pii = anonymise([scored.texts[row] for row in kept], params.pii)
    titles, pii_in_titles = anonymise(table["title"].take(kept).to_pylist(), params.pii)
    urls, pii_in_urls = anonymise(table["url"].take(kept).to_pylist(), params.pii)
    rejected = table.take(removed)
    for name, values in (
        ("split", [piece.split] * len(removed)),
        ("reason", [reasons[row] for row in removed]),
        ("language", [scored.languages[row] for row in removed]),
    ):
        rejected = rejected.append_column(name, pa.array(values, pa.string()))
    scores = [pa.array(scored.scores[metric][removed]) for metric in METRICS]
    return Cleaned(
        kept=_with_columns(table.take(kept), text=texts, title=titles, url=urls),
        rejected=rejected.append_column("scores", pa.StructArray.from_arrays(scores, METRICS)),
        counts=Counts(
            num_documents=len(reasons),
            num_chars=sum(lengths),
            num_chars_kept=sum(map(len, texts)),
            reasons=Counter(reasons),
            languages=Counter(
                language
                for language, fault in zip(scored.languages, faults, strict=True)
                if fault == KEPT
            ),
            removed_lines=scored.removed_lines,
            pii=pii + pii_in_titles + pii_in_urls,
            lengths_kept=_histogram([lengths[row] for row in kept]),
            lengths_removed=_histogram([lengths[row] for row in removed]),
        ),
    )


def _anonymise_conversations(group: RowGroup, pii: PiiParams) -> Cleaned:
    table = read_row_group(group, CONVERSATIONS.names)
    rows = table["messages"].to_pylist()
    contents, replaced = anonymise(
        [message["content"] for messages in rows for message in messages], pii
    )
    rest = iter(contents)
    clean = [[message | {"content": next(rest)} for message in messages] for messages in rows]
    return Cleaned(_with_columns(table, messages=clean), None, Counts(pii=replaced))


def _anonymise_rated_responses(group: RowGroup, pii: PiiParams) -> Cleaned:
    table = read_row_group(group, RATED_RESPONSES.names)
    prompts, in_prompts = anonymise(_column(table, "prompt"), pii)
    responses, in_responses = anonymise(_column(table, "response"), pii)
    return Cleaned(
        _with_columns(table, prompt=prompts, response=responses),
        None,
        Counts(pii=in_prompts + in_responses),
    )


def anonymise(texts: Sequence[str], pii: PiiParams) -> tuple[list[str], Counter[str]]:
    """Texts without personal data, and how many of each kind were replaced."""
    results = [replace_pii(text, pii.placeholders, pii.phone_region) for text in texts]
    replaced: Counter[str] = Counter()
    for _, of_text in results:
        replaced.update(of_text)
    return [text for text, _ in results], replaced


def _column(table: pa.Table, name: str) -> list[str]:
    values: list[str] = table[name].to_pylist()
    return values


def _with_columns(table: pa.Table, **columns: Sequence[object]) -> pa.Table:
    """The table with the values of some columns replaced."""
    for name, values in columns.items():
        field_ = table.schema.field(name)
        table = table.set_column(
            table.schema.get_field_index(name), field_, pa.array(values, field_.type)
        )
    return table


def _histogram(lengths: Sequence[int]) -> NDArray[np.int64]:
    clipped = np.clip(lengths, LENGTH_BIN_EDGES[0], LENGTH_BIN_EDGES[-1])
    return np.histogram(clipped, LENGTH_BIN_EDGES)[0]
