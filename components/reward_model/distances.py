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
    ordered, order = torch.sort(positions.to(p))
    gaps = ordered.diff()
    cumulative = (p - q)[..., order].cumsum(dim=-1)[..., :-1]
    return (cumulative.abs() * gaps).sum(dim=-1)
