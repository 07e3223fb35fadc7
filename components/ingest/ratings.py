"""Rated responses: which questions are asked, what is answered, how it is rated."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc

from components.ingest.candidates import Candidate, candidates
from components.ingest.crowd import Rater, Rating
from components.schemas import RATED_RESPONSES, content_id


@dataclass(frozen=True)
class Prompt:
    """A question with its right answer and another one."""

    id: str
    document_id: str
    question: str
    answer: str
    other_answer: str


def choose_prompts(conversations: Iterable[pa.Table], num_prompts: int) -> list[Prompt]:
    """The `num_prompts` of smallest id among the conversations that have another answer, sorted.

    An id is a hash, so this is a random sample that depends on content alone; only the chosen ones
    are looked at closely.
    """
    candidates = (
        (_id(row_id), table, row) for table in conversations for row, row_id in _rows(table)
    )
    chosen = heapq.nsmallest(num_prompts, candidates, key=itemgetter(0))
    return [_prompt(prompt_id, table.slice(row, 1)) for prompt_id, table, row in chosen]


def _rows(table: pa.Table) -> Iterator[tuple[int, str]]:
    others = pc.utf8_length(table["other_answer"]).to_pylist()
    for row, row_id in enumerate(table["id"].to_pylist()):
        if others[row]:
            yield row, row_id


def _id(conversation_id: str) -> str:
    return content_id("prompt", conversation_id)


def _prompt(prompt_id: str, one_row: pa.Table) -> Prompt:
    (row,) = one_row.to_pylist()
    question, answer = (message["content"] for message in row["messages"])
    return Prompt(prompt_id, row["document_id"], question, answer, row["other_answer"])


def rate(prompts: Sequence[Prompt], rater: Rater, words: Mapping[str, Sequence[str]]) -> pa.Table:
    """RATED_RESPONSES rows: the candidates of each prompt side by side, in the prompts' order."""
    asked = [
        (prompt, candidate)
        for prompt in prompts
        for candidate in candidates(prompt.id, prompt.answer, prompt.other_answer, words)
    ]
    rows = [
        {
            "id": content_id(prompt.id, candidate.kind, candidate.response),
            "prompt_id": prompt.id,
            "document_id": prompt.document_id,
            "prompt": prompt.question,
            "response": candidate.response,
            "candidate": candidate.kind,
            "prior": rating.prior,
            "votes": rating.votes,
            "rater": rater.name,
            "synthetic": True,
        }
        for (prompt, candidate), rating in zip(asked, _ratings(asked, rater), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=RATED_RESPONSES)


def _ratings(asked: Sequence[tuple[Prompt, Candidate]], rater: Rater) -> Iterator[Rating]:
    if rater.num_concurrent == 1:
        for prompt, candidate in asked:
            yield rater.rate(prompt.question, candidate)
        return
    with ThreadPoolExecutor(rater.num_concurrent) as pool:
        futures = [
            pool.submit(rater.rate, prompt.question, candidate) for prompt, candidate in asked
        ]
        try:
            for future in futures:
                yield future.result()
        finally:  # after a failure nobody pays for the rest
            for future in futures:
                future.cancel()
