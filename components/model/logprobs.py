"""How likely a model finds whole answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from components.model.packed import hidden_states
from components.model.rows import ResponseRow, batches_by_length, padded_batch, to_device


def summed_logprobs(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """log pi(y | x) of each answer, summed over its tokens and its <|im_end|>; [N], in nats.

    `batch` is one of `components.model.rows`; differentiable. Logits are made for the answers'
    tokens alone: with a large vocabulary they are most of the work.
    """
    hidden = hidden_states(model, batch["input_ids"], batch["position_ids"]).flatten(0, 1)
    num_tokens = batch["last"] - batch["first"] + 1
    offset = torch.arange(int(num_tokens.max()), device=hidden.device)
    is_target = offset < num_tokens[:, None]
    target = (batch["first"][:, None] + offset)[is_target]
    logits = model.lm_head(hidden[target - 1]).float()
    chosen = -functional.cross_entropy(
        logits, batch["input_ids"].flatten()[target], reduction="none"
    )
    # Laid out one answer a row and summed by row, which a GPU too does the same way every time.
    return chosen.new_zeros(is_target.shape).masked_scatter(is_target, chosen).sum(dim=1)


@torch.no_grad()
def response_logprobs(
    model: Any, rows: Sequence[ResponseRow], max_tokens_per_batch: int = 8192
) -> Tensor:
    """`summed_logprobs` of many rows without gradient, in the rows' order; [N] on the CPU."""
    result = torch.empty(len(rows))
    for batch in batches_by_length([len(row.ids) for row in rows], max_tokens_per_batch):
        tensors = to_device(padded_batch([rows[i] for i in batch]), model.device)
        result[batch] = summed_logprobs(model, tensors).cpu()
    return result
