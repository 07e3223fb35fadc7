"""A multiple-choice task made from held-out operations: which description belongs to this one?

An item is a held-out conversation (its question) with the first sentence of its answer, among the
first sentences of three other held-out answers: of operations of the same service where the split
has them. No distractor comes from the training split, for a model prefers what it has read. Chance
is one in four.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.errors import DataError
from components.shards import read_table

NUM_CHOICES = 4
CHANCE = 1 / NUM_CHOICES
MAX_CHARS = 200
MIN_CHARS = 20
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Answer:
    """One held-out conversation, reduced to what the task needs."""

    id: str
    rule: str
    service: str
    title: str
    """Of the document it was made from."""
    question: str
    description: str


@dataclass(frozen=True)
class Item:
    id: str
    title: str
    question: str
    choices: tuple[str, ...]
    answer: int
    num_same_service: int
    """How many of the distractors describe the same service."""


def read_items(
    dedup: Path, split: str, rules: Sequence[str], num_items: int, seed: int
) -> list[Item]:
    """Items from a split of dedup's output; at most `num_items`, spread evenly over it.

    Raises DataError if no item can be made.
    """
    conversations = read_table(
        dedup / "conversations" / split, ["id", "document_id", "rule", "messages"]
    )
    documents = read_table(dedup / "documents" / split, ["id", "title"])
    titles = dict(zip(documents["id"].to_pylist(), documents["title"].to_pylist(), strict=True))
    answers = []
    for row in conversations.to_pylist():
        spoken = {message["role"]: message["content"] for message in reversed(row["messages"])}
        if row["rule"] not in rules or not {"user", "assistant"} <= spoken.keys():
            continue
        title = titles.get(row["document_id"], "")
        description = first_sentence(spoken["assistant"])
        if len(description) >= MIN_CHARS:
            service = title.rpartition(": ")[0]
            answers.append(
                Answer(row["id"], row["rule"], service, title, spoken["user"], description)
            )
    items = make_items(answers, num_items, seed)
    if not items:
        raise DataError(
            f"{dedup / 'conversations' / split}: too few conversations of {', '.join(rules)} for a "
            f"task with {NUM_CHOICES} choices",
            "name other rules under task.rules, or add documents",
        )
    return items


def first_sentence(text: str) -> str:
    """Up to the first full stop, at most MAX_CHARS characters, cut between words."""
    sentence = _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
    sentence = " ".join(sentence.split())
    if len(sentence) <= MAX_CHARS:
        return sentence
    return sentence[:MAX_CHARS].rsplit(" ", 1)[0]


def make_items(answers: Sequence[Answer], num_items: int, seed: int) -> list[Item]:
    """One item for every k-th answer that has enough others of its rule to stand among.

    The choices of an item differ from each other. Which ones, and where the right one stands,
    depends on the seed and the answer's place alone.
    """
    by_rule: dict[str, list[int]] = defaultdict(list)
    by_service: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, answer in enumerate(answers):
        by_rule[answer.rule].append(place)
        by_service[answer.rule, answer.service].append(place)
    items = []
    for place in range(0, len(answers), max(1, -(-len(answers) // num_items))):
        answer = answers[place]
        random = np.random.default_rng([seed, place])
        near = by_service[answer.rule, answer.service] if answer.service else []
        far = by_rule[answer.rule]
        candidates = [*random.permutation(near), *random.permutation(far)]
        chosen: dict[str, bool] = {}
        for other in candidates:
            text = answers[other].description
            if text != answer.description and text not in chosen:
                chosen[text] = bool(answer.service) and answers[other].service == answer.service
            if len(chosen) == NUM_CHOICES - 1:
                break
        if len(chosen) < NUM_CHOICES - 1:
            continue
        right = int(random.integers(NUM_CHOICES))
        choices = [*chosen]
        choices.insert(right, answer.description)
        items.append(
            Item(
                answer.id,
                answer.title,
                answer.question,
                tuple(choices),
                right,
                sum(chosen.values()),
            )
        )
    return items
