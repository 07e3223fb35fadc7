"""Which of two responses to one prompt is preferred."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from components.preference.crowd import Array
from components.preference.ratings import prompt_slices

TIE = 1e-9
"""Two rewards no further apart are equal: the rest is rounding."""


def preferred_pairs(
    prompt_ids: list[str], rewards: Array, min_margin: float = TIE
) -> NDArray[np.int64]:
    """All (chosen, rejected) rows of a prompt with rewards `min_margin` or more apart, [P, 2].

    Ordered by prompt, then by the two rows' place. A tie is nobody's preference and gives no pair.
    """
    pairs = [
        (a, b) if rewards[a] > rewards[b] else (b, a)
        for rows in prompt_slices(prompt_ids)
        for a, b in combinations(range(rows.start, rows.stop), 2)
        if abs(rewards[a] - rewards[b]) >= max(min_margin, TIE)
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def agreement(chosen_scores: Array, rejected_scores: Array) -> Array:
    """1 where a score ranks the pair as the crowd does, 0 where not, 1/2 where it cannot tell."""
    difference = chosen_scores - rejected_scores
    return np.where(np.abs(difference) <= TIE, 0.5, difference > 0)
