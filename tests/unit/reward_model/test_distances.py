"""The closed form against scipy's linear programme and POT."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog
from scipy.stats import energy_distance

from components.preference.crowd import IS_HARMFUL, REWARDS, expected_reward
from components.reward_model.distances import (
    cramer_distance,
    index_positions,
    reward_positions,
    transport_distance,
)

# Masses of 0 or well above the linear programme's own tolerance of 1e-7.
distributions = (
    arrays(np.int64, 6, elements=st.integers(0, 1000))
    .filter(np.any)
    .map(lambda values: values / values.sum())
)


def by_linear_programme(p, q, cost):
    rows = np.kron(np.eye(6), np.ones(6))
    columns = np.kron(np.ones(6), np.eye(6))
    result = linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q]), method="highs"
    )
    return result.fun


def distance(p, q, positions):
    return transport_distance(torch.tensor(p), torch.tensor(q), positions).item()


def reward_cost(tie_breaker):
    """The two-dimensional cost, not the line's positions."""
    by_reward = np.abs(REWARDS[:, None] - REWARDS[None, :])
    by_harm = np.abs(IS_HARMFUL[:, None] - IS_HARMFUL[None, :])
    return by_reward + tie_breaker * by_harm


INDEX_COST = np.abs(np.arange(6)[:, None] - np.arange(6)[None, :]).astype(float)

GOLDEN = [
    ([0.9, 0.1, 0, 0, 0, 0], [0.9, 0.1, 0, 0, 0, 0], 0, 0),
    ([0.9, 0.1, 0, 0, 0, 0], [0.9, 0, 0.1, 0, 0, 0], 0.1, 0.15),
    ([0.9, 0.1, 0, 0, 0, 0], [0.9, 0, 0, 0.1, 0, 0], 0.2, 0.15),
    ([0.9, 0.1, 0, 0, 0, 0], [0.9, 0, 0, 0, 0, 0.1], 0.4, 0.35),
    ([0.3, 0.1, 0.4, 0.2, 0, 0], [0.2, 0.3, 0.3, 0.2, 0, 0], 0.2, 0.2),
    ([0.5, 0.1, 0.4, 0, 0, 0], [0.3, 0, 0.5, 0, 0.2, 0], 0.9, 0.65),
    ([1 / 6] * 6, [1, 0, 0, 0, 0, 0], 2.5, 11 / 6),
    ([0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], 1, 0),
]


@pytest.mark.parametrize(("p", "q", "want_index", "want_reward"), GOLDEN)
def test_the_golden_values_hold(p, q, want_index, want_reward):
    p, q = np.array(p, dtype=float), np.array(q, dtype=float)
    assert distance(p, q, index_positions()) == pytest.approx(want_index, abs=1e-12)
    assert distance(p, q, reward_positions(0.0)) == pytest.approx(want_reward, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(p=distributions, q=distributions, tie_breaker=st.sampled_from([0.0, 0.1, 1.0, 3.0]))
def test_the_closed_form_is_the_optimum_of_the_linear_programme_and_of_pot(p, q, tie_breaker):
    for cost, positions in (
        (INDEX_COST, index_positions()),
        (reward_cost(tie_breaker), reward_positions(tie_breaker)),
    ):
        closed = distance(p, q, positions)
        assert closed == pytest.approx(by_linear_programme(p, q, cost), abs=1e-9)
        assert closed == pytest.approx(ot.emd2(p, q, cost), abs=1e-9)


@given(p=distributions)
def test_the_expected_reward_is_the_best_reward_less_the_distance_to_the_ideal(p):
    ideal = np.eye(6)[0]
    reward = expected_reward(p)
    assert reward == pytest.approx(
        REWARDS[0] - distance(p, ideal, reward_positions(0.0)), abs=1e-12
    )


def test_a_tie_breaker_tells_apart_the_two_categories_of_one_reward():
    third, fourth = np.eye(6)[2], np.eye(6)[3]
    assert distance(third, fourth, reward_positions(0.0)) == 0
    assert distance(third, fourth, reward_positions(0.25)) == pytest.approx(0.25)


@given(p=distributions, q=distributions, r=distributions)
def test_it_is_a_distance(p, q, r):
    positions = reward_positions(0.1)
    assert distance(p, q, positions) == pytest.approx(distance(q, p, positions), abs=1e-12)
    assert distance(p, r, positions) <= (
        distance(p, q, positions) + distance(q, r, positions) + 1e-12
    )
    assert distance(p, p, positions) == 0


@given(p=distributions, q=distributions, tie_breaker=st.sampled_from([0.0, 0.1, 1.0, 3.0]))
def test_cramers_distance_is_half_the_square_of_scipys_energy_distance(p, q, tie_breaker):
    for positions in (index_positions(), reward_positions(tie_breaker)):
        got = cramer_distance(torch.tensor(p), torch.tensor(q), positions).item()
        at = positions.numpy()
        assert got == pytest.approx(energy_distance(at, at, p, q) ** 2 / 2, abs=1e-9)


@given(p=distributions, q=distributions)
def test_cramers_distance_is_the_expected_gap_between_two_answers_less_those_within(p, q):
    # Szekely: E|X - Y| - E|X - X'| / 2 - E|Y - Y'| / 2, by the cost matrix alone.
    for cost, positions in (
        (INDEX_COST, index_positions()),
        (reward_cost(0.1), reward_positions(0.1)),
    ):
        want = p @ cost @ q - p @ cost @ p / 2 - q @ cost @ q / 2
        got = cramer_distance(torch.tensor(p), torch.tensor(q), positions).item()
        assert got == pytest.approx(want, abs=1e-9)


def test_its_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.softmax(torch.randn(5, 6, dtype=torch.float64, generator=generator), dim=-1)
    for positions in (index_positions(), reward_positions(0.0), reward_positions(0.2)):
        for distance in (transport_distance, cramer_distance):
            assert torch.autograd.gradcheck(
                lambda x, at=positions, of=distance: of(torch.softmax(x, dim=-1), target, at),
                logits,
            )
