"""Rated responses in memory, with the crowd's posterior beside each."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.errors import DataError
from components.preference.crowd import (
    Array,
    count_votes,
    expected_reward,
    posterior_alpha,
    posterior_mean,
    smooth_counts,
)
from components.shards import read_table


@dataclass(frozen=True)
class Ratings:
    """N responses, those of a prompt side by side; every field has N entries."""

    ids: list[str]
    prompt_ids: list[str]
    prompts: list[str]
    responses: list[str]
    candidates: list[str]
    """How each response was made: right, cut_off, ..."""
    counts: Array
    """Votes for each category, unsmoothed, [N, 6]."""
    targets: Array
    """The crowd's posterior mean distribution, [N, 6]."""
    raters: tuple[str, ...]
    """Who voted, each once, sorted."""

    @property
    def rewards(self) -> Array:
        """The crowd's expected reward of each response, [N]."""
        return expected_reward(self.targets)

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def select(self, rows: NDArray[np.int64]) -> "Ratings":
        """These rows, in this order."""
        return Ratings(
            [self.ids[row] for row in rows],
            [self.prompt_ids[row] for row in rows],
            [self.prompts[row] for row in rows],
            [self.responses[row] for row in rows],
            [self.candidates[row] for row in rows],
            self.counts[rows],
            self.targets[rows],
            self.raters,
        )


def read_ratings(folder: Path, prior_strength: float, smoothing: float) -> Ratings:
    """Read a table of rated responses and update the prior by the smoothed votes.

    Raises DataError if the table is empty, or a row has no vote, a vote outside 0..5, or a prior
    that is no distribution.
    """
    columns = ["id", "prompt_id", "prompt", "response", "candidate", "prior", "votes", "rater"]
    table = read_table(folder, columns)
    if table.num_rows == 0:
        raise DataError(
            f"{folder}: no rated response",
            "let `ingest` make some (ingest.ratings.num_prompts), or add a source of them",
        )
    prior = np.array(table["prior"].to_pylist(), dtype=np.float64)
    if not np.allclose(prior.sum(axis=1), 1.0, atol=1e-6) or prior.min() < 0:
        raise DataError(f"{folder}: a prior does not sum to 1", "run `ingest` again")
    try:
        counts = count_votes(table["votes"].to_pylist())
    except ValueError as error:
        raise DataError(f"{folder}: {error}", "run `ingest` again") from error
    if not counts.sum(axis=1).all():
        raise DataError(f"{folder}: a response without a vote", "run `ingest` again")
    alpha = posterior_alpha(prior, smooth_counts(counts, prior, smoothing), prior_strength)
    return Ratings(
        ids=table["id"].to_pylist(),
        prompt_ids=table["prompt_id"].to_pylist(),
        prompts=table["prompt"].to_pylist(),
        responses=table["response"].to_pylist(),
        candidates=table["candidate"].to_pylist(),
        counts=counts,
        targets=posterior_mean(alpha),
        raters=tuple(sorted(set(table["rater"].to_pylist()))),
    )


UPDATE_FILE = "crowd.json"


def write_update(folder: Path, prior_strength: float, smoothing: float) -> None:
    """Say beside a reward model how its targets were made, so that others make the same."""
    update = {"prior_strength": prior_strength, "smoothing": smoothing}
    (folder / UPDATE_FILE).write_text(json.dumps(update) + "\n", encoding="utf-8")


def read_update(folder: Path) -> tuple[float, float]:
    """prior_strength and smoothing of `write_update`. Raises DataError if they are not there."""
    path = folder / UPDATE_FILE
    try:
        update = json.loads(path.read_text(encoding="utf-8"))
        return float(update["prior_strength"]), float(update["smoothing"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: not what reward_model writes", "run reward_model again, or `dvc checkout`"
        ) from error


def prompt_slices(prompt_ids: list[str]) -> list[slice]:
    """Where the responses of each prompt lie, in order; a prompt's responses must be neighbours."""
    starts = [i for i, name in enumerate(prompt_ids) if i == 0 or prompt_ids[i - 1] != name]
    return [slice(a, b) for a, b in pairwise([*starts, len(prompt_ids)])]
