"""What a reward model minimises."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward_model.distances import (
    cramer_distance,
    index_positions,
    reward_positions,
    transport_distance,
)

LossName = Literal["ce", "w", "ot"]
LOSS_NAMES: tuple[LossName, ...] = ("ce", "w", "ot")
DistancePower = Literal[1, 2]
DistributionLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits [N, 6] and target distributions [N, 6] to losses [N]."""


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """DPRM_C: - sum_i mu^t_i log mu^s_i, in nats, [N]."""
    return -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def _distance_loss(
    logits: Tensor, target: Tensor, positions: Tensor, power: DistancePower
) -> Tensor:
    distance = transport_distance if power == 1 else cramer_distance
    return distance(torch.softmax(logits, dim=-1), target, positions)


def distribution_loss(
    name: LossName, tie_breaker: float, distance_power: DistancePower
) -> DistributionLoss:
    """DPRM_C, DPRM_W or DPRM_OT; `tie_breaker` counts for OT alone, `distance_power` not for CE.

    With power 2, differences of the cumulative distributions are squared (see `distances`).
    """
    if name == "ce":
        return cross_entropy
    positions = index_positions() if name == "w" else reward_positions(tie_breaker)
    return partial(_distance_loss, positions=positions, power=distance_power)


def bradley_terry(scores: Tensor, chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigma(s_w - s_l) for each pair of row numbers into `scores` [N]; [P], in nats."""
    return -F.logsigmoid(scores[chosen] - scores[rejected])
