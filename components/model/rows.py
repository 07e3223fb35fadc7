"""A prompt and its answer as one row of token ids, and rows as padded batches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.chat import encode_prompt, encode_text
from components.tokens import IM_END_ID

PAD_ID = 0
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


def pad_right(rows: Sequence[Sequence[int]], device: torch.device | None = None) -> Tensor:
    """Rows of ids as one int64 tensor [N, longest]."""
    longest = max(map(len, rows))
    padded = [[*row, *[PAD_ID] * (longest - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.int64, device=device)


def response_mask(rows: Sequence[ResponseRow], device: torch.device | None = None) -> Tensor:
    """Which tokens of `pad_right` are the answer's, <|im_end|> among them; bool [N, longest]."""
    position = torch.arange(max(len(row.ids) for row in rows), device=device)
    start = torch.tensor([row.start for row in rows], device=device)
    end = torch.tensor([len(row.ids) for row in rows], device=device)
    return (position >= start[:, None]) & (position < end[:, None])


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
