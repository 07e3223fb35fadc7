import math

import numpy as np
import pytest

from components.bootstrap import standard_error
from components.measure.ratio import mean_with_error, ratio_with_error


def test_the_error_of_a_mean_is_the_textbooks() -> None:
    values = np.array([1.0, 2.0, 2.0, 5.0])
    mean, error = mean_with_error(values)
    assert mean == 2.5
    assert error == pytest.approx(values.std(ddof=1) / 2)


def test_the_error_of_a_ratio_is_the_bootstraps() -> None:
    random = np.random.default_rng(0)
    num_bytes = random.integers(100, 5000, 400).astype(float)
    bits = num_bytes * random.normal(1.2, 0.3, 400)
    ratio, error = ratio_with_error(bits, num_bytes)
    resampled = standard_error(
        np.stack([bits, num_bytes], axis=1), lambda total: total[:, 0] / total[:, 1], 4000, 1
    )
    assert ratio == pytest.approx(bits.sum() / num_bytes.sum())
    assert error == pytest.approx(resampled, rel=0.05)


def test_a_paired_difference_is_surer_than_two_separate_figures() -> None:
    random = np.random.default_rng(0)
    num_bytes = random.integers(100, 5000, 400).astype(float)
    before = num_bytes * random.normal(1.2, 0.3, 400)
    after = before + num_bytes * random.normal(0.01, 0.01, 400)
    change, error = ratio_with_error(after - before, num_bytes)
    assert change == pytest.approx(0.01, abs=3 * error)
    assert error < 0.1 * ratio_with_error(after, num_bytes)[1]


def test_one_cluster_has_a_figure_and_no_error() -> None:
    ratio, error = ratio_with_error([3.0], [2.0])
    assert ratio == 1.5
    assert math.isnan(error)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="numerators"):
        ratio_with_error([1.0, 2.0], [1.0])
