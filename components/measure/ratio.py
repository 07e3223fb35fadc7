"""A ratio of sums and its standard error, in closed form."""

import math

import numpy as np
from numpy.typing import ArrayLike


def ratio_with_error(numerators: ArrayLike, denominators: ArrayLike) -> tuple[float, float]:
    """sum(numerators) / sum(denominators) and its standard error; one entry for each cluster.

    The error is the linearised (delta-method) one for clusters drawn independently: a document with
    its bits and bytes, a prompt with all its pairs. With denominators of 1 it is the standard error
    of a mean, sd / sqrt(n). For a paired comparison pass the differences as numerators. NaN with
    fewer than two clusters.
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)
    if above.shape != below.shape:
        raise ValueError(f"{above.shape} numerators, {below.shape} denominators")
    ratio = float(above.sum() / below.sum())
    n = len(above)
    if n < 2:
        return ratio, math.nan
    residuals = above - ratio * below
    return ratio, float(np.sqrt((residuals**2).sum() * n / (n - 1)) / below.sum())


def mean_with_error(values: ArrayLike) -> tuple[float, float]:
    """The mean of independent values and its standard error, sd / sqrt(n)."""
    array = np.asarray(values, dtype=np.float64)
    return ratio_with_error(array, np.ones_like(array))
