"""A policy's answers to prompts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from components.model.generate import sample
from components.model.rows import ResponseRow, encode_prompts
from components.tokens import IM_END_ID


class Answer(NamedTuple):
    """One answer as it was drawn, and as text."""

    row: ResponseRow
    text: str

    @property
    def is_finished(self) -> bool:
        """It ended with <|im_end|>, not at the limit of its length."""
        return self.row.ids[-1] == IM_END_ID


def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch_size: int,
) -> list[Answer]:
    """One answer for each prompt; a prompt that comes k times gets k draws."""
    encoded = encode_prompts(tokenizer, prompts)
    drawn = sample(
        model,
        tokenizer,
        encoded,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
    )
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in drawn]
    return [
        Answer(ResponseRow([*prompt, *ids], len(prompt)), text.strip())
        for prompt, ids, text in zip(encoded, drawn, texts, strict=True)
    ]
