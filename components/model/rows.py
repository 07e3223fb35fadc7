"""A prompt and its answer as one row of token ids, and many of them as tensors.

A batch of answers holds `input_ids` and `position_ids` [R, L], and for each of N answers the places
of its first and last token, `first` and `last` [N], counted through the rows end to end (row * L +
column). Padded here, one answer a row; `components.train.responses` packs several into one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.chat import encode_prompt, encode_text
from components.tokens import IM_END_ID, UNKNOWN_ID

PAD_ID = UNKNOWN_ID
"""Fills a row on the right: with causal attention no real token ever sees it."""


class ResponseRow(NamedTuple):
    """ChatML ids up to the answer's <|im_end|>; the answer begins at `start`."""

    ids: list[int]
    start: int

    @property
    def num_response_tokens(self) -> int:
        return len(self.ids) - self.start


def encode_prompts(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """User prompts as ids that end where the answer begins; equal prompts are encoded once."""
    encoded = {
        prompt: encode_prompt(tokenizer, [{"role": "user", "content": prompt}])
        for prompt in dict.fromkeys(prompts)
    }
    return [encoded[prompt] for prompt in prompts]


def encode_responses(
    tokenizer: Any, prompts: Sequence[str], responses: Sequence[str]
) -> list[ResponseRow]:
    """One row for each (prompt, response): `chat.encode` of the two, up to the last <|im_end|>."""
    encoded = {text: encode_text(tokenizer, text) for text in dict.fromkeys(responses)}
    return [
        ResponseRow([*prompt, *encoded[response], IM_END_ID], len(prompt))
        for prompt, response in zip(encode_prompts(tokenizer, prompts), responses, strict=True)
    ]


def padded_batch(rows: Sequence[ResponseRow]) -> dict[str, Tensor]:
    """One answer a row, padded on the right to the longest."""
    length = max(len(row.ids) for row in rows)
    padded = [row.ids + [PAD_ID] * (length - len(row.ids)) for row in rows]
    return {
        "input_ids": torch.tensor(padded),
        "position_ids": torch.arange(length).expand(len(rows), length),
        "first": torch.tensor([i * length + row.start for i, row in enumerate(rows)]),
        "last": torch.tensor([i * length + len(row.ids) - 1 for i, row in enumerate(rows)]),
    }


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """All row numbers in batches of similar length, each at most `max_tokens` with its padding.

    A row longer than that is a batch of its own. The same lengths give the same batches.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        # Longest first: the batch's first row is its width.
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}
