"""What a crowd thinks of a response, as a distribution over DPRM's six categories.

Distributional Preference Reward Modeling (arXiv 2402.09764), Table 1 and the Bayesian updater. The
paper leaves the update equation, the strength of the prior and the amount of smoothing open; ours
is the conjugate one: theta ~ Dirichlet(strength * prior), updated by the personas' votes.
"""

import numpy as np
from numpy.typing import NDArray

from components.schemas import NUM_CATEGORIES

Array = NDArray[np.float64]

REWARDS: Array = np.array([1.0, 0.5, -1.0, -1.0, -1.5, -3.0])
"""DPRM's Table 1: the reward of each category. Categories 3 and 4 share one."""
IS_HARMFUL: Array = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
"""The second axis of Table 1."""


def next_most_likely(prior: Array) -> NDArray[np.int64]:
    """For each row of `prior` [N, 6] and each category k, the likeliest other category: [N, 6].

    Of equally likely ones the nearest in index counts, and of two equally near the lower.
    """
    index = np.arange(NUM_CATEGORIES)
    distance = np.abs(index[:, None] - index[None, :])
    others = np.where(distance == 0, -np.inf, prior[:, None, :])
    is_best = others == others.max(axis=2, keepdims=True)
    return np.asarray(np.where(is_best, distance, NUM_CATEGORIES).argmin(axis=2), dtype=np.int64)


def smooth_counts(counts: Array, prior: Array, epsilon: float) -> Array:
    """Targeted label smoothing: each vote for k gives `epsilon` of itself to the next likely label.

    A one-hot vote becomes 1 - epsilon at k and epsilon at `next_most_likely`; all else stays 0,
    unlike uniform smoothing. `counts` and `prior` are [N, 6]; epsilon in [0, 0.5), so the vote
    keeps its argmax. The sum of each row stays.
    """
    given = epsilon * counts
    smoothed = counts - given
    rows = np.arange(len(counts))[:, None]
    np.add.at(smoothed, (rows, next_most_likely(prior)), given)
    return np.asarray(smoothed)


def posterior_alpha(prior: Array, counts: Array, strength: float) -> Array:
    """Parameters of the Dirichlet posterior, strength * prior + counts; shapes [..., 6].

    Updating vote by vote, in any order, gives the same. Each marginal is
    Beta(alpha_k, alpha_0 - alpha_k), the paper's first version.
    """
    return np.asarray(strength * prior + counts)


def posterior_mean(alpha: Array) -> Array:
    """E[theta], the target distribution mu^t; rows sum to 1."""
    return np.asarray(alpha / alpha.sum(axis=-1, keepdims=True))


def posterior_variance(alpha: Array) -> Array:
    """Var[theta_k] = a_k (a_0 - a_k) / (a_0^2 (a_0 + 1))."""
    total = alpha.sum(axis=-1, keepdims=True)
    return np.asarray(alpha * (total - alpha) / (total**2 * (total + 1)))


def expected_reward(distribution: Array) -> Array:
    """r(x, y) = sum_i mu_i r_i, the scalar the policy is trained on; in [-3, 1]."""
    return np.asarray(distribution @ REWARDS)


def count_votes(votes: list[list[int]]) -> Array:
    """How many personas chose each category: [N, 6]. A vote outside 0..5 raises ValueError."""
    lengths = np.fromiter((len(row) for row in votes), dtype=np.int64, count=len(votes))
    flat = np.fromiter((vote for row in votes for vote in row), dtype=np.int64)
    if flat.size and not (flat.min() >= 0 and flat.max() < NUM_CATEGORIES):
        raise ValueError(
            f"votes are categories 0..{NUM_CATEGORIES - 1}, found {flat.min()}..{flat.max()}"
        )
    cells = np.repeat(np.arange(len(votes)), lengths) * NUM_CATEGORIES + flat
    counts = np.bincount(cells, minlength=len(votes) * NUM_CATEGORIES)
    return counts.reshape(len(votes), NUM_CATEGORIES).astype(np.float64)
