"""What the models say to held-out prompts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from components.evaluate.subjects import Subject, prompt_ids
from components.model.generate import STOP_TOKENS, sample

BATCH_SIZE = 96


class Answer(NamedTuple):
    text: str
    ended: bool
    """Whether the model stopped by itself; else it was cut off at the limit."""


def greedy_answers(
    subject: Subject, model: Any, tokenizer: Any, questions: Sequence[str], max_new_tokens: int
) -> list[Answer]:
    """The likeliest token, one after the other."""
    stops = set(tokenizer.convert_tokens_to_ids(STOP_TOKENS))
    answers = sample(
        model,
        tokenizer,
        prompt_ids(subject, tokenizer, questions),
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        top_p=1.0,
        seed=0,
        batch_size=BATCH_SIZE,
    )
    return [
        Answer(
            tokenizer.decode([token for token in ids if token not in stops]).strip(),
            bool(ids) and ids[-1] in stops,
        )
        for ids in answers
    ]


def spread(texts: Sequence[str], num: int) -> list[str]:
    """About `num` different texts, taken evenly, in order."""
    different = list(dict.fromkeys(texts))
    return different[:: max(1, -(-len(different) // num))]
