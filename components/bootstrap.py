"""Standard errors by resampling whole groups (a prompt with all its responses).

Rows of one prompt are not independent, so a row-wise error would be too small. Every figure we
report is a function of sums over rows; hence each group is reduced to its sums once, and a resample
is a weighted sum of groups: one matrix product for all resamples (Efron's bootstrap, clustered).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def group_sums(values: Array, groups: Sequence[str]) -> Array:
    """Sum the rows of `values` [N, F] that share a group; [G, F], groups in order of appearance."""
    number: dict[str, int] = {}
    index = np.array([number.setdefault(group, len(number)) for group in groups], dtype=np.int64)
    sums = np.zeros((len(number), values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def standard_error(
    sums: Array, statistic: Callable[[Array], Array], num_resamples: int, seed: int
) -> float:
    """Standard deviation of `statistic` over `num_resamples` bootstrap samples of the groups.

    `sums` is [G, F]; `statistic` maps totals [R, F] to [R] values. Fewer than two groups tell
    nothing about the spread: NaN.
    """
    num_groups = len(sums)
    if num_groups < 2:
        return float("nan")
    draws = np.random.default_rng(seed).multinomial(
        num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples
    )
    return float(np.std(statistic(draws @ sums), ddof=1))


def mean_with_error(
    values: Array, groups: Sequence[str], num_resamples: int, seed: int
) -> tuple[float, float]:
    """Mean of `values` [N] and its standard error, resampling `groups` (one name for each row)."""
    rows = np.stack([values, np.ones_like(values)], axis=1)
    error = standard_error(
        group_sums(rows, groups), lambda total: total[:, 0] / total[:, 1], num_resamples, seed
    )
    return float(np.mean(values)), error
