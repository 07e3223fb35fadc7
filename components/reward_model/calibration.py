"""Whether predicted probabilities mean what they say."""

import numpy as np

from components.preference.crowd import Array


def brier_scores(predicted: Array, counts: Array) -> Array:
    """Mean over a response's votes of sum_k (p_k - vote_k)^2 (Brier 1950); [N], in [0, 2].

    `predicted` [N, 6], `counts` [N, 6] votes. Raters differ, so even a perfect predictor scores
    above 0.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.asarray((predicted**2).sum(axis=1) - 2 * (predicted * shares).sum(axis=1) + 1)


def calibration_rows(predicted: Array, counts: Array, num_bins: int) -> Array:
    """Per response what `calibration_bins` sums: [N, 3 * num_bins] of count, confidence, accuracy.

    Confidence is the largest predicted probability and accuracy the share of raters who chose that
    category; bins are equally wide in confidence, the last one closed.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    top = predicted.argmax(axis=1)
    row = np.arange(len(predicted))
    confidence, accuracy = predicted[row, top], shares[row, top]
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    cells = np.zeros((len(predicted), num_bins, 3))
    cells[row, bins] = np.stack([np.ones_like(confidence), confidence, accuracy], axis=1)
    return cells.reshape(len(predicted), num_bins * 3)


def expected_calibration_error(totals: Array) -> Array:
    """ECE (Guo et al. 2017, eq. 3) of totals [R, 3 * num_bins] of `calibration_rows`; [R]."""
    cells = totals.reshape(len(totals), -1, 3)
    gap = np.abs(cells[:, :, 1] - cells[:, :, 2])
    return np.asarray(gap.sum(axis=1) / cells[:, :, 0].sum(axis=1))


def probability_bins(
    predicted: Array, counts: Array, num_bins: int
) -> list[tuple[float, float, int]]:
    """The reliability curve over all categories: (mean predicted, share of votes, n) of each bin.

    Empty bins are left out.
    """
    shares = (counts / counts.sum(axis=1, keepdims=True)).ravel()
    flat = predicted.ravel()
    bins = np.minimum((flat * num_bins).astype(np.int64), num_bins - 1)
    return [
        (float(flat[bins == b].mean()), float(shares[bins == b].mean()), int((bins == b).sum()))
        for b in range(num_bins)
        if (bins == b).any()
    ]
