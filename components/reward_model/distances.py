"""Optimal transport between two preference distributions, in closed form.

The paper's two costs both place the six categories on a line, so the optimal plan is the monotone
one and OT_C(p, q) = sum_k (x_(k+1) - x_(k)) |F_p(k) - F_q(k)|: exact, and differentiable where the
two cumulative distributions differ.

* W: cost |i - j| on the category's index.
* OT: cost |r_i - r_j| on its reward. The paper proves that maximising the expected reward equals
  minimising the OT distance to the ideal answer; that forces this cost (our reading, its appendix
  is not public). Categories 3 and 4 share a reward, so this cost alone cannot tell them apart.
  The optional tie breaker makes the cost two-dimensional, |r_i - r_j| + t |harmful_i - harmful_j|.
  Every harmless category is worth at least every harmful one, so that cost is again a distance on a
  line, with positions r_i - t harmful_i.

As a loss the transport distance has a fault: raters disagree by chance, and the prediction with the
least expected |F_p - F_q| has the medians of the targets' cumulative distributions, not the means.
It is overconfident: where most answers of a kind get no vote in a category, so predicts it. The same
sum over (F_p - F_q)^2 is the Cramer distance; its expectation is least at the mean, as that of
cross-entropy is, and it keeps the geometry.
"""

import torch
from torch import Tensor

from components.preference.crowd import IS_HARMFUL, REWARDS
from components.schemas import NUM_CATEGORIES


def index_positions() -> Tensor:
    """Where W puts the categories, [6] float64."""
    return torch.arange(NUM_CATEGORIES, dtype=torch.float64)


def reward_positions(tie_breaker: float) -> Tensor:
    """Where OT puts the categories, [6] float64; `tie_breaker` >= 0, in units of reward."""
    return torch.from_numpy(REWARDS - tie_breaker * IS_HARMFUL)


def transport_distance(p: Tensor, q: Tensor, positions: Tensor) -> Tensor:
    """OT distance of distributions `p` and `q` [..., 6] for the cost |positions_i - positions_j|.

    Returns [...], in the unit of the positions. At F_p = F_q the gradient is the subgradient 0.
    """
    differences, gaps = _cumulative_differences(p, q, positions)
    return (differences.abs() * gaps).sum(dim=-1)


def cramer_distance(p: Tensor, q: Tensor, positions: Tensor) -> Tensor:
    """Integral of (F_p - F_q)^2 over the line (Cramer 1928; Szekely's energy distance, halved).

    `p`, `q` [..., 6] to [...], in the unit of the positions; at most the transport distance.
    """
    differences, gaps = _cumulative_differences(p, q, positions)
    return (differences.square() * gaps).sum(dim=-1)


def _cumulative_differences(p: Tensor, q: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """F_p - F_q after each category but the last [..., 5], and the way to the next category [5]."""
    ordered, order = torch.sort(positions.to(p))
    return (p - q)[..., order].cumsum(dim=-1)[..., :-1], ordered.diff()
