"""Pairs of text as token ids, with the reference's log-probabilities beside them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor

from components.dpo.objective import EncodedPairs
from components.dpo.reference import reference_digest, stored_logprobs
from components.model.logprobs import response_logprobs
from components.model.rows import ResponseRow, encode_responses
from components.train.loop import autocast

Rows = tuple[list[ResponseRow], list[ResponseRow]]


def encode_pairs(tokenizer: Any, table: pa.Table, row_length: int) -> tuple[pa.Table, Rows]:
    """The pairs whose two responses fit into a row, and their (chosen, rejected) rows."""
    prompts = table["prompt"].to_pylist()
    chosen = encode_responses(tokenizer, prompts, table["chosen"].to_pylist())
    rejected = encode_responses(tokenizer, prompts, table["rejected"].to_pylist())
    fitting = [
        i
        for i, (a, b) in enumerate(zip(chosen, rejected, strict=True))
        if max(len(a.ids), len(b.ids)) <= row_length
    ]
    rows = [chosen[i] for i in fitting], [rejected[i] for i in fitting]
    return table.take(pa.array(fitting, pa.int64())), rows


def with_reference(
    rows: Rows, reference: Any, weights_digest: str, folder: Path
) -> tuple[EncodedPairs, bool]:
    """The rows with their log-probabilities under `reference`, and whether those were stored.

    `reference` is any model that holds the weights of that digest: here the policy itself, before
    its first step, so that no second model is ever in memory. They are computed in the precision
    that it trains in, or its rewards would not begin at 0.
    """
    chosen, rejected = rows
    both = [*chosen, *rejected]

    def compute() -> Tensor:
        with autocast(reference.device):
            return response_logprobs(reference, both)

    digest = reference_digest(weights_digest, both, reference.device)
    logprobs, was_stored = stored_logprobs(folder, digest, len(both), compute)
    return EncodedPairs(chosen, rejected, *logprobs.chunk(2)), was_stored
