"""The crowd's posterior against the golden values of a reference computation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.preference.crowd import (
    REWARDS,
    count_votes,
    expected_reward,
    next_most_likely,
    posterior_alpha,
    posterior_mean,
    posterior_variance,
    smooth_counts,
)

PRIOR = np.array([[0.5, 0.3, 0.1, 0.05, 0.03, 0.02]])
COUNTS = np.array([[3.0, 4.0, 2.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("strength", "want_mean", "want_reward"),
    [
        (1, [0.318182, 0.390909, 0.190909, 0.004545, 0.002727, 0.092727], 0.035909),
        (6, [0.375, 0.3625, 0.1625, 0.01875, 0.01125, 0.07], 0.148125),
        (10, [0.4, 0.35, 0.15, 0.025, 0.015, 0.06], 0.1975),
        (50, None, 0.329167),
    ],
)
def test_the_posterior_mean_has_the_golden_values(strength, want_mean, want_reward):
    mean = posterior_mean(posterior_alpha(PRIOR, COUNTS, strength))
    if want_mean is not None:
        np.testing.assert_allclose(mean[0], want_mean, atol=5e-7)
    np.testing.assert_allclose(expected_reward(mean), [want_reward], atol=5e-7)


def test_the_posterior_variance_is_that_of_the_beta_marginal():
    from scipy.stats import beta

    alpha = posterior_alpha(PRIOR, COUNTS, 6.0)
    variance = posterior_variance(alpha)[0]
    assert variance[0] == pytest.approx(0.013787, abs=5e-7)
    want = [beta(a, alpha.sum() - a).var() for a in alpha[0]]
    np.testing.assert_allclose(variance, want, rtol=1e-12)


def test_updating_vote_by_vote_in_any_order_gives_the_same_posterior():
    votes = [0, 1, 2, 1, 5, 0, 1, 2, 0, 1]
    alpha = 6.0 * PRIOR[0]
    for vote in reversed(votes):
        alpha = posterior_alpha(alpha, np.eye(6)[vote], 1.0)
    np.testing.assert_allclose(alpha, posterior_alpha(PRIOR, COUNTS, 6.0)[0], atol=1e-12)


@pytest.mark.parametrize(
    ("distribution", "want"),
    [
        ([0.5, 0.1, 0.4, 0, 0, 0], 0.15),
        ([0.3, 0, 0.5, 0, 0.2, 0], -0.5),
        ([1, 0, 0, 0, 0, 0], 1.0),
        ([0, 0, 0, 0, 0, 1], -3.0),
    ],
)
def test_the_expected_reward_is_the_papers(distribution, want):
    assert expected_reward(np.array(distribution)) == pytest.approx(want, abs=1e-12)


def test_smoothing_gives_the_next_most_likely_label_its_share_and_no_other():
    one_hot = np.eye(6)
    smoothed = smooth_counts(one_hot, np.repeat(PRIOR, 6, axis=0), 0.1)
    want = 0.9 * np.eye(6)
    want[0, 1] = 0.1  # the likeliest other label of 0 is 1
    want[1:, 0] = 0.1  # and 0 for all others
    np.testing.assert_allclose(smoothed, want, atol=1e-15)


def test_equally_likely_labels_are_told_apart_by_nearness_then_by_the_lower_index():
    uniform = np.full((1, 6), 1 / 6)
    assert next_most_likely(uniform)[0].tolist() == [1, 0, 1, 2, 3, 4]
    tie = np.array([[0.4, 0.05, 0.05, 0.05, 0.05, 0.4]])
    assert next_most_likely(tie)[0].tolist() == [5, 0, 0, 5, 5, 0]


priors = arrays(np.float64, (3, 6), elements=st.floats(0.01, 1.0)).map(
    lambda values: values / values.sum(axis=1, keepdims=True)
)


@given(prior=priors, label=st.integers(0, 5), epsilon=st.floats(0.0, 0.49))
def test_smoothing_keeps_the_sum_and_the_argmax_of_a_vote(prior, label, epsilon):
    smoothed = smooth_counts(np.repeat(np.eye(6)[[label]], 3, axis=0), prior, epsilon)
    np.testing.assert_allclose(smoothed.sum(axis=1), 1.0, atol=1e-12)
    assert (smoothed.argmax(axis=1) == label).all()
    assert (smoothed >= 0).all()


@given(prior=priors, strength=st.floats(0.1, 1e4))
def test_without_votes_the_posterior_is_the_prior(prior, strength):
    mean = posterior_mean(posterior_alpha(prior, np.zeros_like(prior), strength))
    np.testing.assert_allclose(mean, prior, rtol=1e-9)


def test_with_all_raters_agreeing_and_no_prior_the_reward_is_that_of_the_label():
    counts = 11.0 * np.eye(6)
    mean = posterior_mean(posterior_alpha(np.full((6, 6), 1 / 6), counts, 1e-12))
    np.testing.assert_allclose(expected_reward(mean), REWARDS, atol=1e-10)


def test_votes_are_counted_for_each_response():
    counts = count_votes([[0, 0, 5], [2], []])
    assert counts.tolist() == [[2, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0], [0] * 6]


@pytest.mark.parametrize("vote", [-1, 6])
def test_a_vote_for_no_category_is_refused(vote):
    with pytest.raises(ValueError, match=r"categories 0\.\.5"):
        count_votes([[0], [vote]])
