"""What the training loop is given: batches of pairs, and the loss of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from components.dpo.losses import (
    LossName,
    PairLogprobs,
    implicit_rewards,
    log_ratio_margin,
    preference_loss,
)
from components.model.logprobs import summed_logprobs
from components.model.rows import ResponseRow
from components.train.loop import Batch, BatchesAt, Loss, LossFn
from components.train.packing import Ints, micro_batches, rows_at
from components.train.responses import packed_batch


@dataclass(frozen=True)
class EncodedPairs:
    """P pairs as token ids, with the reference's log-probability of each whole response, [P]."""

    chosen: Sequence[ResponseRow]
    rejected: Sequence[ResponseRow]
    reference_chosen: Tensor
    reference_rejected: Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, pairs: Ints, row_length: int) -> dict[str, Tensor]:
        """These pairs packed into rows: first all chosen responses, then all rejected ones."""
        rows = [self.chosen[i] for i in pairs] + [self.rejected[i] for i in pairs]
        return packed_batch(rows, row_length) | {
            "reference_chosen": self.reference_chosen[pairs],
            "reference_rejected": self.reference_rejected[pairs],
        }


def pair_batches(
    pairs: EncodedPairs,
    *,
    row_length: int,
    pairs_per_batch: int,
    pairs_per_micro_batch: int,
    seed: int,
) -> BatchesAt:
    """Optimiser step -> its micro-batches; every pair once an epoch, in a new order each."""
    at = rows_at(len(pairs), pairs_per_batch, seed)
    return lambda step: [
        pairs.batch(chosen, row_length) for chosen in micro_batches(at(step), pairs_per_micro_batch)
    ]


def all_batches(pairs: EncodedPairs, row_length: int, pairs_per_micro_batch: int) -> list[Batch]:
    """Every pair once, in order: for measuring."""
    numbers = np.arange(len(pairs))
    return [pairs.batch(part, row_length) for part in micro_batches(numbers, pairs_per_micro_batch)]


def pair_objective(loss: LossName, beta: float, label_smoothing: float) -> LossFn:
    """The named loss, with the implicit rewards, their margin and its accuracy as figures."""
    return partial(_pair_loss, loss=loss, beta=beta, label_smoothing=label_smoothing)


def _pair_loss(
    model: nn.Module, batch: Batch, *, loss: LossName, beta: float, label_smoothing: float
) -> Loss:
    chosen, rejected = summed_logprobs(model, batch).chunk(2)
    logprobs = PairLogprobs(
        chosen, rejected, batch["reference_chosen"], batch["reference_rejected"]
    )
    losses = preference_loss(loss, log_ratio_margin(logprobs), beta, label_smoothing)
    chosen_reward, rejected_reward = implicit_rewards(logprobs, beta)
    figures = {
        "chosen_reward": chosen_reward.sum(),
        "rejected_reward": rejected_reward.sum(),
        "reward_margin": (chosen_reward - rejected_reward).sum(),
        # As in the reference implementation: a tie counts 0.
        "reward_accuracy": (chosen_reward > rejected_reward).sum().to(torch.float32),
    }
    return Loss(losses.sum(), len(losses), figures)
