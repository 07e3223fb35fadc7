"""Preference losses of summed response log-probabilities, with the paper's equation beside each.

h = (log pi(y_w) - log pi(y_l)) - (log pi_ref(y_w) - log pi_ref(y_l)); all shapes [P], in nats.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["sigmoid", "cdpo", "ipo"]


class PairLogprobs(NamedTuple):
    """Log-probability of each whole response, summed over its tokens, [P] each."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


def log_ratio_margin(logprobs: PairLogprobs) -> Tensor:
    """h, how much more the policy prefers the chosen response than the reference does."""
    policy = logprobs.policy_chosen - logprobs.policy_rejected
    return policy - (logprobs.reference_chosen - logprobs.reference_rejected)


def sigmoid_loss(margin: Tensor, beta: float) -> Tensor:
    """DPO (arXiv 2305.18290), eq. 7: -log sigma(beta h)."""
    return -F.logsigmoid(beta * margin)


def cdpo_loss(margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Conservative DPO: labels are wrong with probability eps = `label_smoothing` in [0, 0.5).

    -(1 - eps) log sigma(beta h) - eps log sigma(-beta h); least at beta h = logit(1 - eps).
    """
    right = -F.logsigmoid(beta * margin)
    wrong = -F.logsigmoid(-beta * margin)
    return (1 - label_smoothing) * right + label_smoothing * wrong


def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """IPO (arXiv 2310.12036), eq. 17: (h - 1 / (2 tau))^2 with tau = `beta`."""
    return (margin - 1 / (2 * beta)) ** 2


def preference_loss(name: LossName, margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """The named loss of `margin` = h; `label_smoothing` counts for cdpo alone."""
    if name == "sigmoid":
        return sigmoid_loss(margin, beta)
    if name == "cdpo":
        return cdpo_loss(margin, beta, label_smoothing)
    return ipo_loss(margin, beta)


def implicit_rewards(logprobs: PairLogprobs, beta: float) -> tuple[Tensor, Tensor]:
    """r_hat = beta log(pi / pi_ref) of the chosen and the rejected responses, without gradient."""
    with torch.no_grad():
        return (
            beta * (logprobs.policy_chosen - logprobs.reference_chosen),
            beta * (logprobs.policy_rejected - logprobs.reference_rejected),
        )
