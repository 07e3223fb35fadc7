"""What conversations and rated responses say, as 64-bit digests: enough to find an answer again.

Two answers count as the same if only case and white space differ. An answer of fewer than
`min_answer_chars` characters ("Yes.") says nothing by itself, and a corpus may hold thousands of
it: it counts together with its prompt only. A conversation's answer is also known by its first
sentence, which is what the multiple-choice task asks for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import xxhash

from components.dedup.fingerprints import HEX_NAME, Names
from components.dedup.spill import U64, Ints
from components.measure.choices import first_sentence
from components.shards import RowGroup, read_row_group

CONVERSATION_COLUMNS = ("document_id", "messages")
RATING_COLUMNS = ("document_id", "prompt_id", "prompt", "response", "candidate")
STOCK_CANDIDATE = "vague"
"""One of a few phrases that say nothing, given to every prompt of every split: it gives none away."""


class Part(NamedTuple):
    """Some rows that one worker reads."""

    split: str
    table: str
    group: RowGroup


@dataclass(frozen=True)
class Digests:
    """Of the n rows of one part."""

    documents: Names
    """[n] ids; empty for a user's own row."""
    whole: U64
    """[n] of a conversation all that is said, of a rated response its prompt's id."""
    answers: U64
    """By which each row's answers are known."""
    num_answers: Ints
    """[n]"""


def digest_part(part: Part, min_answer_chars: int | None) -> Digests:
    """Read one part; without `min_answer_chars` no answer is looked at."""
    if part.table == "conversations":
        rows = read_row_group(part.group, CONVERSATION_COLUMNS).to_pylist()
        whole = [
            digest(*(said[key] for said in row["messages"] for key in ("role", "content")))
            for row in rows
        ]
        answers = [conversation_answers(row["messages"], min_answer_chars) for row in rows]
    else:
        rows = read_row_group(part.group, RATING_COLUMNS).to_pylist()
        whole = [digest(row["prompt_id"]) for row in rows]
        answers = [response_answers(row, min_answer_chars) for row in rows]
    return Digests(
        documents=np.array([row["document_id"] for row in rows], HEX_NAME),
        whole=np.array(whole, np.uint64),
        answers=np.array([each for of_row in answers for each in of_row], np.uint64),
        num_answers=np.array([len(of_row) for of_row in answers], np.int64),
    )


def conversation_answers(messages: Sequence[Mapping[str, str]], min_chars: int | None) -> list[int]:
    """By what the assistant's answers are known; nothing without `min_chars`."""
    if min_chars is None:
        return []
    nobody = {"role": "", "content": ""}
    return [
        known
        for before, said in pairwise([nobody, *messages])
        if said["role"] == "assistant"
        for known in answer_digests(
            before["content"], (said["content"], first_sentence(said["content"])), min_chars
        )
    ]


def response_answers(row: Mapping[str, str], min_chars: int | None) -> list[int]:
    """By what a rated response is known; nothing without `min_chars`."""
    if min_chars is None or row["candidate"] == STOCK_CANDIDATE:
        return []
    return answer_digests(row["prompt"], (row["response"],), min_chars)


def answer_digests(prompt: str, forms: Sequence[str], min_chars: int) -> list[int]:
    """Digests of an answer's forms, the whole one first; of prompt and answer if all are short."""
    normal = dict.fromkeys(normalise(form) for form in forms)
    long = [digest(form) for form in normal if len(form) >= min_chars]
    return long or [digest(normalise(prompt), normalise(forms[0]))]


def normalise(text: str) -> str:
    return " ".join(text.casefold().split())


def digest(*parts: str) -> int:
    return xxhash.xxh3_64_intdigest("\0".join(parts).encode("utf-8", "surrogatepass"))
