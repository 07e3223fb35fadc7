import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from components.reward_model.calibration import (
    brier_scores,
    calibration_rows,
    expected_calibration_error,
    probability_bins,
)


def test_the_brier_score_of_single_votes_is_scikit_learns():
    rng = np.random.default_rng(0)
    predicted = rng.dirichlet(np.ones(6), size=200)
    votes = rng.integers(0, 6, size=200)
    want = brier_score_loss(votes, predicted, labels=range(6), scale_by_half=False)
    assert brier_scores(predicted, np.eye(6)[votes]).mean() == pytest.approx(want)


def test_the_brier_score_of_a_crowd_is_the_mean_over_its_votes():
    predicted = np.array([[0.5, 0.3, 0.2, 0, 0, 0]])
    counts = np.array([[2, 1, 0, 0, 0, 0]])
    each = [((predicted[0] - np.eye(6)[vote]) ** 2).sum() for vote in (0, 0, 1)]
    assert brier_scores(predicted, counts)[0] == pytest.approx(np.mean(each))


def test_a_predictor_that_says_what_the_crowd_says_is_calibrated():
    shares = np.random.default_rng(1).dirichlet(np.ones(6), size=50)
    totals = calibration_rows(shares, 11 * shares, 10).sum(axis=0, keepdims=True)
    assert expected_calibration_error(totals)[0] == pytest.approx(0, abs=1e-12)


def test_the_calibration_error_weighs_bins_by_their_size():
    # Three answers at confidence 0.9 of which 2/3 agree; one at 0.55 with nobody agreeing.
    sure, unsure = [0.9, 0.1, 0, 0, 0, 0], [0.55, 0.45, 0, 0, 0, 0]
    predicted = np.array([sure, sure, sure, unsure])
    counts = np.eye(6)[[0, 0, 1, 1]]
    totals = calibration_rows(predicted, counts, 10).sum(axis=0, keepdims=True)
    want = 0.75 * abs(0.9 - 2 / 3) + 0.25 * 0.55
    assert expected_calibration_error(totals)[0] == pytest.approx(want)


def test_certainty_falls_into_the_last_bin():
    predicted = np.eye(6)[[0]]
    assert probability_bins(predicted, predicted, 4) == [(0.0, 0.0, 5), (1.0, 1.0, 1)]
