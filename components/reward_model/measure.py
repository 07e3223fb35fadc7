"""Held-out figures, each with its standard error (bootstrap over prompts) as `<name>_se`."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy

from components.bootstrap import group_sums, mean_with_error, standard_error
from components.preference.crowd import Array, expected_reward
from components.preference.pairs import agreement
from components.preference.ratings import Ratings
from components.reward_model.calibration import (
    brier_scores,
    calibration_rows,
    expected_calibration_error,
)
from components.reward_model.distances import index_positions, reward_positions, transport_distance

Figures = dict[str, float]


def distribution_figures(
    predicted: Array, ratings: Ratings, *, num_bins: int, num_resamples: int, seed: int
) -> Figures:
    """How far predicted distributions [N, 6] are from the crowd's.

    Cross-entropy in nats (`ce_nats`), OT distance by index (`w1_index`) and by reward without a tie
    breaker (`ot_reward`), absolute error of the expected reward (`reward_error`), Brier score and
    calibration error against the raw votes (`brier`, `ece`).
    """
    p, target = torch.from_numpy(predicted), torch.from_numpy(ratings.targets)
    error = np.abs(expected_reward(predicted) - ratings.rewards)
    each: Mapping[str, Array] = {
        "ce_nats": -xlogy(ratings.targets, predicted).sum(axis=1),
        "w1_index": transport_distance(p, target, index_positions()).numpy(),
        "ot_reward": transport_distance(p, target, reward_positions(0.0)).numpy(),
        "reward_error": error,
        "brier": brier_scores(predicted, ratings.counts),
    }
    figures: Figures = {}
    for name, values in each.items():
        figures[name], figures[f"{name}_se"] = mean_with_error(
            values, ratings.prompt_ids, num_resamples, seed
        )
    bins = group_sums(calibration_rows(predicted, ratings.counts, num_bins), ratings.prompt_ids)
    figures["ece"] = float(expected_calibration_error(bins.sum(axis=0, keepdims=True))[0])
    figures["ece_se"] = standard_error(bins, expected_calibration_error, num_resamples, seed)
    return figures


def pairwise_agreement(scores: Array, pairs: NDArray[np.int64]) -> Array:
    """Whether `scores` [N] rank each of the crowd's `pairs` [P, 2] right; a tied score counts 1/2."""
    return agreement(scores[pairs[:, 0]], scores[pairs[:, 1]])


def pairwise_figures(
    agreements: Array, prompt_ids: list[str], *, num_resamples: int, seed: int
) -> Figures:
    """Share of pairs ranked as the crowd ranks them; one prompt id for each pair."""
    mean, error = mean_with_error(agreements, prompt_ids, num_resamples, seed)
    return {"pairwise_accuracy": mean, "pairwise_accuracy_se": error}
