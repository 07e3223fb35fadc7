"""Conversations and rated responses: they follow their document, and give no held-out answer away.

Documents that differ may have answers in common: two operations take the same parameter. So rows
are compared by their answers too, those of both tables together, and the one that is trained on
goes: what valid or test asks for is no answer of training, what test asks for none of valid. The
responses of one prompt stay or go together. At last, of equal conversations the first stays,
held-out ones first.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.dedup.answers import Digests, Part
from components.dedup.fingerprints import Names
from components.dedup.paragraphs import repeated
from components.dedup.spill import U64, Ints, SpilledColumn, SpilledSets
from components.schemas import CONVERSATIONS, RATED_RESPONSES, SPLITS
from components.shards import ShardWriter, read_row_group, row_groups

STAYS, WITHOUT_DOCUMENT, HELD_OUT_ANSWER, REPEATED = range(4)
REASONS = ("", "document", "held_out_answer", "exact")
TABLES = {"conversations": CONVERSATIONS, "rated_responses": RATED_RESPONSES}

Reasons = NDArray[np.int8]
Flags = NDArray[np.bool_]


def parts_of(source: Path, splits: Sequence[str]) -> list[Part]:
    """The pieces of both tables, split by split in the order given."""
    return [
        Part(split, table, group)
        for split in splits
        for table in TABLES
        for group in row_groups(source / table / split)
    ]


def judge_followers(
    parts: Sequence[Part], digests: Iterable[Digests], documents: Names, folder: Path
) -> Reasons:
    """[R] why each row of the parts goes, an index into REASONS.

    The parts are of held-out splits first; `documents` are the ids of those that stay. In memory
    are a few bytes for each row and the answers of the held-out ones; the rest is in `folder`.
    """
    documents = np.sort(documents)
    whole = SpilledColumn(folder / "followers.u64")
    spilled = SpilledSets(folder / "answers.u64")
    reasons = [np.zeros(0, np.int8)]
    for found in digests:
        stays = (found.documents == b"") | _among(found.documents, documents)
        reasons.append(np.where(stays, STAYS, WITHOUT_DOCUMENT).astype(np.int8))
        whole.append(found.whole)
        spilled.append(found.answers, found.num_answers)
    reason, wholes = np.concatenate(reasons), whole.mapped()
    answers, first = spilled.mapped()
    _mark_held_out_answers(reason, parts, wholes, answers, first)
    is_conversation = np.repeat(
        np.array([part.table == "conversations" for part in parts], bool),
        np.array([part.group.num_rows for part in parts], np.int64),
    )
    reason[repeated(wholes, (reason == STAYS) & is_conversation, min_occurrences=2)] = REPEATED
    return reason


def _mark_held_out_answers(
    reason: Reasons, parts: Sequence[Part], wholes: U64, answers: U64, first: Ints
) -> None:
    """Row r of the parts has answers[first[r]:first[r + 1]]."""
    held_out = np.zeros(0, np.uint64)
    begin = 0
    for split, of_split in groupby(parts, attrgetter("split")):
        end = begin
        for table, of_table in groupby(of_split, attrgetter("table")):
            start = end
            for part in of_table:
                rows = slice(end, end + part.group.num_rows)
                end = rows.stop
                is_known = _among(answers[first[rows.start] : first[rows.stop]], held_out)
                owner = np.repeat(
                    np.arange(rows.start, rows.stop), np.diff(first[rows.start : end + 1])
                )
                known = owner[is_known]
                reason[known[reason[known] == STAYS]] = HELD_OUT_ANSWER
            if table == "rated_responses":
                _spread_over_prompts(reason[start:end], wholes[start:end])
        if split != "train":
            stays = np.repeat(reason[begin:end] == STAYS, np.diff(first[begin : end + 1]))
            held_out = np.union1d(held_out, answers[first[begin] : first[end]][stays])
        begin = end


def _spread_over_prompts(reason: Reasons, prompts: U64) -> None:
    """What goes for one response goes for all of its prompt, which lie side by side."""
    prompt = np.cumsum(prompts != np.concatenate((prompts[:1], prompts[:-1])))
    goes = np.zeros(len(prompts) + 1, bool)
    goes[prompt[reason == HELD_OUT_ANSWER]] = True
    reason[goes[prompt] & (reason == STAYS)] = HELD_OUT_ANSWER


def _among(values: NDArray[np.generic], ordered: NDArray[np.generic]) -> Flags:
    """Which values are in `ordered`, which is ascending."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    at = np.searchsorted(ordered, values)
    at[at == len(ordered)] = 0
    is_there: Flags = ordered[at] == values
    return is_there


def write_followers(
    folder: Path, parts: Sequence[Part], reason: Reasons, rows_per_shard: int
) -> None:
    """Write `folder`/<table>/<split>/ for both tables and every split."""
    with ExitStack() as stack:
        writers = {
            (split, table): stack.enter_context(
                ShardWriter(folder / table / split, schema, rows_per_shard)
            )
            for split in SPLITS
            for table, schema in TABLES.items()
        }
        for part, reasons in _by_part(parts, reason):
            rows: pa.Table = read_row_group(part.group, TABLES[part.table].names)
            writers[part.split, part.table].write(rows.filter(reasons == STAYS))


def count_reasons(parts: Sequence[Part], reason: Reasons) -> dict[str, dict[str, Counter[str]]]:
    """Rows by table, split and reason; those that stay under the empty one."""
    counts = {table: {split: Counter[str]() for split in SPLITS} for table in TABLES}
    for part, reasons in _by_part(parts, reason):
        of_part = np.bincount(reasons, minlength=len(REASONS)).tolist()
        counts[part.table][part.split].update(dict(zip(REASONS, of_part, strict=True)))
    return counts


def _by_part(parts: Sequence[Part], reason: Reasons) -> Iterator[tuple[Part, Reasons]]:
    start = 0
    for part in parts:
        yield part, reason[start : start + part.group.num_rows]
        start += part.group.num_rows
