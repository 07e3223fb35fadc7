import math

import numpy as np
import pytest

from components.bootstrap import group_sums, mean_with_error, standard_error


def test_the_standard_error_of_a_mean_of_independent_rows_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=400)
    mean, error = mean_with_error(values, [str(i) for i in range(400)], 4000, seed=1)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(400), rel=0.05)


def test_rows_of_one_group_that_are_copies_do_not_shrink_the_error():
    values = np.random.default_rng(0).normal(size=100)
    names = [str(i) for i in range(100)]
    _, single = mean_with_error(values, names, 4000, seed=1)
    _, copied = mean_with_error(np.repeat(values, 10), np.repeat(names, 10).tolist(), 4000, seed=1)
    assert copied == pytest.approx(single)


def test_one_group_tells_nothing_about_the_spread():
    assert math.isnan(mean_with_error(np.array([1.0, 2.0]), ["a", "a"], 100, seed=0)[1])


def test_group_sums_are_in_order_of_appearance():
    sums = group_sums(np.array([[1.0], [2.0], [4.0]]), ["b", "a", "b"])
    assert sums.tolist() == [[5.0], [2.0]]


def test_the_same_seed_gives_the_same_error():
    sums = np.random.default_rng(0).normal(size=(50, 1))
    first, second = (standard_error(sums, lambda t: t[:, 0], 200, seed=7) for _ in range(2))
    assert first == second
