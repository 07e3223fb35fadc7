"""Answers to many prompts at once, with a key-value cache.

transformers' own `generate` gives the same greedy answers (a test holds it), but takes several
times as long for a small model, draws from the global random state, and computes finished rows to
the end. Here a row's draws depend on the seed and its place alone, and finished rows leave.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from components.errors import UserError
from components.model.rows import PAD_ID

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch_size: int,
) -> list[list[int]]:
    """Continue each prompt (ids, as of `chat.encode_prompt`) by up to `max_new_tokens` ids.

    An answer that ended of itself has its stop token as the last id; one that lacks it was cut off
    at the limit. Temperature 0 takes the likeliest token; `top_p` in (0, 1] keeps the smallest set
    of tokens that has this probability. Raises UserError if a prompt and its answer may not fit the
    model's context.
    """
    longest = max(map(len, prompts), default=0)
    context = int(model.config.max_position_embeddings)
    if longest + max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's "
            f"context of {context}",
            "lower max_new_tokens or leave out long prompts",
        )
    generator = torch.Generator().manual_seed(seed)
    stops = torch.tensor(tokenizer.convert_tokens_to_ids(STOP_TOKENS), device=model.device)
    draws = torch.rand(len(prompts), max_new_tokens, generator=generator)
    by_length = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
    answers: list[list[int]] = [[] for _ in prompts]
    for first in range(0, len(prompts), batch_size):
        rows = by_length[first : first + batch_size]
        batch = _continue(
            model,
            [prompts[row] for row in rows],
            draws[rows].to(model.device),
            stops,
            temperature=temperature,
            top_p=top_p,
        )
        for row, answer in zip(rows, batch, strict=True):
            answers[row] = answer
    return answers


def _continue(
    model: Any,
    prompts: Sequence[Sequence[int]],
    draws: Tensor,
    stops: Tensor,
    *,
    temperature: float,
    top_p: float,
) -> list[list[int]]:
    """One batch; `draws` [B, max_new_tokens] are uniform in [0, 1), `stops` are ids."""
    device = model.device
    longest = max(map(len, prompts))
    # Padded on the left, so that every row's next token is in the last column.
    tokens = torch.tensor(
        [[PAD_ID] * (longest - len(row)) + [*row] for row in prompts], device=device
    )
    lengths = torch.tensor([len(row) for row in prompts], device=device)
    mask = torch.arange(longest, device=device) >= longest - lengths[:, None]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    answers: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts), device=device)
    for step in range(draws.shape[1]):
        hidden = model.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        logits = model.lm_head(hidden).float()
        chosen = choose_tokens(logits, draws[alive, step], temperature=temperature, top_p=top_p)
        for row, token in zip(alive.tolist(), chosen.tolist(), strict=True):
            answers[row].append(token)
        going_on = ~torch.isin(chosen, stops)
        if not going_on.any():
            break
        if not going_on.all():
            keep = going_on.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            alive, chosen, mask, positions = alive[keep], chosen[keep], mask[keep], positions[keep]
        tokens = chosen[:, None]
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
    return answers


def choose_tokens(logits: Tensor, draws: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """A token id for each row of `logits` [B, V], by inverting the CDF at `draws` [B]; int64."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p == 1:
        return _invert(probabilities, draws)
    ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    is_nucleus = ordered.cumsum(dim=-1) - ordered < top_p  # the token that crosses top_p is in
    place = _invert(ordered * is_nucleus, draws)
    return ids.gather(1, place[:, None]).squeeze(1)


def _invert(weights: Tensor, draws: Tensor) -> Tensor:
    """The first place where the cumulative weight exceeds draw * total; never one of weight 0."""
    cumulative = weights.double().cumsum(dim=-1)
    target = draws.double()[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)
