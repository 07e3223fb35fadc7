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
    """By log-likelihood."""
    normalised: Array
    """By log-likelihood for each character, as lm-eval's acc_norm."""


def chat_contexts(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """The question as a user's turn, for a model that was taught ChatML."""
    return encode_prompts(tokenizer, [item.question for item in items])


def title_contexts(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """The start of a document with the item's title, for a model that knows documents alone."""
    return [[START_OF_TEXT_ID, *encode_text(tokenizer, f"{item.title}\n\n")] for item in items]


def plain_contexts(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """The question as a document's first paragraph."""
    return [[START_OF_TEXT_ID, *encode_text(tokenizer, f"{item.question}\n\n")] for item in items]


def choose(
    model: Any, tokenizer: Any, items: Sequence[Item], contexts: Sequence[Sequence[int]]
) -> Correct:
    """Score every choice after its item's context; no end marker is part of a choice."""
    rows = [
        ResponseRow([*context, *ids], len(context))
        for item, context in zip(items, contexts, strict=True)
        for ids in encode_texts(tokenizer, item.choices)
    ]
    scores = response_logprobs(model, rows).double().numpy().reshape(len(items), -1)
    lengths = np.array([[len(choice) for choice in item.choices] for item in items])
    right = np.array([item.answer for item in items])
    return Correct(
        (scores.argmax(axis=1) == right).astype(np.float64),
        ((scores / lengths).argmax(axis=1) == right).astype(np.float64),
    )
