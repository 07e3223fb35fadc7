"""Which choice a model finds likeliest."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.chat import encode_text, encode_texts
from components.measure.choices import Item
from components.model.logprobs import response_logprobs
from components.model.rows import ResponseRow, encode_prompts
from components.tokens import START_OF_TEXT_ID

Array = NDArray[np.float64]


class Correct(NamedTuple):
    """1 where the right choice was taken, else 0; [items] each."""

    raw: Array
    """By log P(choice | question): mostly by how common a sentence is."""
    normalised: Array
    """By that for each character (lm-eval's acc_norm)."""
    mutual_information: Array
    """By log P(choice | question) - log P(choice): by what the question adds (acc_mutual_info)."""


def chat_contexts(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """The question as a user's turn, for a model that was taught ChatML."""
    return encode_prompts(tokenizer, [item.question for item in items])


def title_contexts(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """The start of a document with the item's title, for a model that knows documents alone."""
    return [[START_OF_TEXT_ID, *encode_text(tokenizer, f"{item.title}\n\n")] for item in items]


def choose(
    model: Any, tokenizer: Any, items: Sequence[Item], contexts: Sequence[Sequence[int]]
) -> Correct:
    """Score every choice after its item's context; no end marker is part of a choice."""
    scores = _scores(model, tokenizer, items, contexts)
    alone = _scores(model, tokenizer, items, [[START_OF_TEXT_ID]] * len(items))
    lengths = np.array([[len(choice) for choice in item.choices] for item in items])
    right = np.array([item.answer for item in items])
    taken = (scores, scores / lengths, scores - alone)
    return Correct(*((table.argmax(axis=1) == right).astype(np.float64) for table in taken))


def _scores(
    model: Any, tokenizer: Any, items: Sequence[Item], contexts: Sequence[Sequence[int]]
) -> Array:
    """log P(choice | context); [items, choices]. Equal questions are asked once."""
    texts = [choice for item in items for choice in item.choices]
    ids = dict(zip(texts, encode_texts(tokenizer, texts), strict=True))
    asked: dict[tuple[tuple[int, ...], str], int] = {}
    place = [
        [asked.setdefault((tuple(context), choice), len(asked)) for choice in item.choices]
        for item, context in zip(items, contexts, strict=True)
    ]
    rows = [ResponseRow([*context, *ids[choice]], len(context)) for context, choice in asked]
    scores: Array = response_logprobs(model, rows).double().numpy()
    of_choice: Array = scores[np.array(place)]
    return of_choice
