"""Whether a model ranks two answers as the crowd does."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.bootstrap import group_sums
from components.errors import DataError
from components.measure.ratio import ratio_with_error
from components.model.reward import load_reward_model, score
from components.preference.crowd import Array
from components.preference.pairs import agreement, preferred_pairs
from components.preference.ratings import Ratings, prompt_slices, read_ratings, read_update


class RatedPairs(NamedTuple):
    """Held-out rated answers and the pairs of them that the crowd does not rate equal."""

    ratings: Ratings
    pairs: NDArray[np.int64]
    """(chosen, rejected) rows, [P, 2]."""

    @property
    def prompt_ids(self) -> list[str]:
        """One for each pair."""
        return [self.ratings.prompt_ids[row] for row in self.pairs[:, 0]]


def read_pairs(dedup: Path, reward_model: Path, split: str, num_prompts: int) -> RatedPairs:
    """The answers to `num_prompts` prompts of a split, taken evenly.

    The crowd's opinion is made from its votes as the reward model's targets were. Raises DataError
    if no pair is left.
    """
    folder = dedup / "rated_responses" / split
    ratings = read_ratings(folder, *read_update(reward_model))
    slices = prompt_slices(ratings.prompt_ids)
    every = max(1, -(-len(slices) // num_prompts))
    ratings = ratings.select(np.concatenate([np.r_[part] for part in slices[::every]]))
    pairs = preferred_pairs(ratings.prompt_ids, ratings.rewards)
    if not len(pairs):
        raise DataError(
            f"{folder}: the crowd prefers no answer over another",
            "add rated responses, or prompts with several answers",
        )
    return RatedPairs(ratings, pairs)


def ranked_right(scores: Array, rated: RatedPairs) -> Array:
    """1 for each pair whose chosen answer has the higher of `scores` [N]; 1/2 for a tie; [P]."""
    return agreement(scores[rated.pairs[:, 0]], scores[rated.pairs[:, 1]])


def share_with_error(values: Array, groups: Sequence[str]) -> tuple[float, float]:
    """Mean of `values` [P] and its standard error; pairs of one group are not independent."""
    sums = group_sums(np.stack([values, np.ones_like(values)], axis=1), groups)
    return ratio_with_error(sums[:, 0], sums[:, 1])


def reward_scores(folder: Path, questions: Sequence[str], answers: Sequence[str]) -> Array:
    """What the reward model in `folder` gives each answer; [N]."""
    model, tokenizer = load_reward_model(folder)
    return score(model, tokenizer, questions, answers)
