"""How likely a model finds whole answers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from components.model.rows import ResponseRow, batches_by_length, pad_right, response_mask


def summed_logprobs(model: Any, input_ids: Tensor, is_response: Tensor) -> Tensor:
    """log pi(y | x) of each row, summed over the tokens that `is_response` marks; [N], in nats.

    `input_ids` [N, L] padded on the right, `is_response` bool [N, L]; differentiable. Logits are
    made for the marked tokens alone: with a short answer they are most of the work.
    """
    is_target = is_response[:, 1:]
    hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[is_target]).float()
    chosen = -functional.cross_entropy(logits, input_ids[:, 1:][is_target], reduction="none")
    # Scattered and summed by row, which is deterministic on a GPU too; index_add is not.
    placed = chosen.new_zeros(is_target.shape).masked_scatter(is_target, chosen)
    return placed.sum(dim=1)


@torch.no_grad()
def response_logprobs(
    model: Any, rows: Sequence[ResponseRow], max_tokens_per_batch: int = 8192
) -> Tensor:
    """`summed_logprobs` of many rows without gradient, in the rows' order; [N] on the CPU."""
    result = torch.empty(len(rows))
    for batch in batches_by_length([len(row.ids) for row in rows], max_tokens_per_batch):
        chosen = [rows[i] for i in batch]
        input_ids = pad_right([row.ids for row in chosen], model.device)
        mask = response_mask(chosen, model.device)
        result[batch] = summed_logprobs(model, input_ids, mask).cpu()
    return result
