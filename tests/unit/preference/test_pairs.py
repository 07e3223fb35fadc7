import numpy as np

from components.preference.pairs import agreement, preferred_pairs
from components.preference.ratings import prompt_slices


def test_pairs_stay_within_a_prompt_and_leave_out_ties():
    rewards = np.array([0.5, -1.0, 0.5, 2.0, 1.0])
    pairs = preferred_pairs(["a", "a", "a", "b", "b"], rewards)
    assert pairs.tolist() == [[0, 1], [2, 1], [3, 4]]


def test_a_margin_is_reached_by_equality():
    rewards = np.array([1.0, 0.5, 0.0])
    assert preferred_pairs(["a"] * 3, rewards, 0.5).tolist() == [[0, 1], [0, 2], [1, 2]]
    assert preferred_pairs(["a"] * 3, rewards, 0.75).tolist() == [[0, 2]]


def test_no_pair_is_an_empty_table_of_two_columns():
    assert preferred_pairs(["a", "b"], np.array([1.0, 0.0])).shape == (0, 2)


def test_a_score_that_cannot_tell_counts_half():
    chosen, rejected = np.array([1.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0])
    assert agreement(chosen, rejected).tolist() == [1.0, 0.0, 0.5]


def test_slices_follow_the_prompts():
    assert prompt_slices(["a", "a", "b", "c", "c"]) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert prompt_slices([]) == []
