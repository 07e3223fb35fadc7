"""Preference pairs from two places, as one table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.preference.crowd import Array
from components.preference.pairs import preferred_pairs
from components.preference.ratings import Ratings, prompt_slices
from components.schemas import content_id

RATED = "rated"
SAMPLED = "sampled"

PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_reward", pa.float64()),  # of the crowd if rated, of the reward model if sampled
        ("rejected_reward", pa.float64()),
        ("origin", pa.string()),  # rated, or sampled from the SFT model
        ("judge", pa.string()),  # who rated: the raters' names, or `reward model`
    ]
)


def rated_pairs(
    ratings: Ratings, min_margin: float, num_prompts: int, pairs_per_prompt: int, seed: int
) -> pa.Table:
    """PAIRS of rated responses whose crowd rewards differ by `min_margin` or more.

    From the first `num_prompts` prompts; of a prompt's pairs at most `pairs_per_prompt`, drawn by
    `seed`: the widest alone would always show the same two kinds of answer.
    """
    prompts = prompt_slices(ratings.prompt_ids)[:num_prompts]
    part = ratings.select(np.arange(prompts[-1].stop if prompts else 0))
    pairs = preferred_pairs(part.prompt_ids, part.rewards, min_margin)
    by_prompt: dict[str, list[int]] = {}
    for number, (chosen, _) in enumerate(pairs):
        by_prompt.setdefault(part.prompt_ids[chosen], []).append(number)
    generator = np.random.default_rng(seed)
    drawn = [
        number
        for numbers in by_prompt.values()
        for number in sorted(generator.permutation(numbers)[:pairs_per_prompt].tolist())
    ]
    return _table(
        part.prompt_ids,
        part.prompts,
        part.responses,
        part.rewards,
        pairs[drawn],
        RATED,
        ", ".join(part.raters),
    )


def sampled_pairs(
    prompt_ids: list[str],
    prompts: Sequence[str],
    responses: Sequence[str],
    rewards: Array,
    min_margin: float,
) -> pa.Table:
    """PAIRS of the best and the worst of each prompt's samples, if `min_margin` or more apart.

    A prompt's samples lie side by side.
    """
    widest = [
        (rows.start + int(rewards[rows].argmax()), rows.start + int(rewards[rows].argmin()))
        for rows in prompt_slices(prompt_ids)
    ]
    pairs = [(a, b) for a, b in widest if a != b and rewards[a] - rewards[b] >= min_margin]
    numbers = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return _table(prompt_ids, prompts, responses, rewards, numbers, SAMPLED, "reward model")


def _table(
    prompt_ids: Sequence[str],
    prompts: Sequence[str],
    responses: Sequence[str],
    rewards: Array,
    pairs: NDArray[np.int64],
    origin: str,
    judge: str,
) -> pa.Table:
    rows = [
        {
            "id": content_id(prompt_ids[chosen], responses[chosen], responses[rejected]),
            "prompt_id": prompt_ids[chosen],
            "prompt": prompts[chosen],
            "chosen": responses[chosen],
            "rejected": responses[rejected],
            "chosen_reward": rewards[chosen],
            "rejected_reward": rewards[rejected],
            "origin": origin,
            "judge": judge,
        }
        for chosen, rejected in pairs.tolist()
    ]
    return pa.Table.from_pylist(rows, schema=PAIRS)
