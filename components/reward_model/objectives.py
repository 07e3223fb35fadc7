"""What the training loop is given: batches of whole prompts, and one loss for each kind of model.

All models see the same batches. A batch holds prompts with all their answers, so that each answer
is read once for all pairs that it is in (as InstructGPT does, arXiv 2203.02155, section 3.5).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from components.model.rows import ResponseRow
from components.preference.pairs import preferred_pairs
from components.preference.ratings import Ratings, prompt_slices
from components.reward_model.losses import DistributionLoss, bradley_terry
from components.train.loop import Batch, BatchesAt, Loss, LossFn
from components.train.packing import Ints, micro_batches, rows_at
from components.train.responses import packed_batch


def prompt_batches(
    ratings: Ratings,
    rows: Sequence[ResponseRow],
    *,
    row_length: int,
    prompts_per_batch: int,
    prompts_per_micro_batch: int,
    seed: int,
) -> BatchesAt:
    """Optimiser step -> its micro-batches; every prompt once an epoch, in a new order each."""
    answers = [np.arange(part.start, part.stop) for part in prompt_slices(ratings.prompt_ids)]
    prompts_at = rows_at(len(answers), prompts_per_batch, seed)

    def at(step: int) -> list[Batch]:
        return [
            _batch(ratings, rows, np.concatenate([answers[i] for i in prompts]), row_length)
            for prompts in micro_batches(prompts_at(step), prompts_per_micro_batch)
        ]

    return at


def first_batch_without_pairs(
    ratings: Ratings, *, prompts_per_batch: int, num_steps: int, seed: int
) -> int | None:
    """The first optimiser step whose prompts of `prompt_batches` give Bradley-Terry no pair."""
    parts = prompt_slices(ratings.prompt_ids)
    chosen = preferred_pairs(ratings.prompt_ids, ratings.rewards)[:, 0]
    has_pair = np.array([bool(np.isin(chosen, np.r_[part]).any()) for part in parts])
    prompts_at = rows_at(len(parts), prompts_per_batch, seed)
    return next((step for step in range(num_steps) if not has_pair[prompts_at(step)].any()), None)


def _batch(
    ratings: Ratings, rows: Sequence[ResponseRow], chosen: Ints, row_length: int
) -> dict[str, Tensor]:
    part = ratings.select(chosen)
    pairs = preferred_pairs(part.prompt_ids, part.rewards)
    return packed_batch([rows[i] for i in chosen], row_length) | {
        "targets": torch.from_numpy(part.targets).float(),
        "chosen": torch.from_numpy(pairs[:, 0]),
        "rejected": torch.from_numpy(pairs[:, 1]),
    }


def distribution_objective(loss: DistributionLoss) -> LossFn:
    """Mean loss over answers, between predicted and crowd's distribution."""

    def objective(model: nn.Module, batch: Batch) -> Loss:
        losses = loss(model(batch), batch["targets"])
        return Loss(losses.sum(), len(losses))

    return objective


def bradley_terry_objective(model: nn.Module, batch: Batch) -> Loss:
    """Mean negative log-likelihood over pairs, in nats."""
    scores = model(batch)[:, 0]
    losses = bradley_terry(scores, batch["chosen"], batch["rejected"])
    return Loss(losses.sum(), len(losses))
