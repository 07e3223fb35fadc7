"""Symmetric int4 with one scale for each group of neighbouring weights.

A weight w becomes code = clamp(round(w / scale), -8, 7) and is read back as code * scale. Rounding
and range are those of compressed-tensors' `pack-quantized` format, so its reader gives back the
same numbers.
"""

from typing import Literal

import torch
from torch import Tensor

CODE_MIN, CODE_MAX = -8, 7
HALF_RANGE = (CODE_MAX - CODE_MIN) / 2
ScaleSearch = Literal["minmax", "mse"]

SHRINK_FACTORS = torch.linspace(0.6, 1.15, 45)
"""Of the min-max scale. Below 1 the largest weights are clipped and the rest rounded finer; above 1
the code -8 alone reaches the largest weight, which pays where that one is negative."""


def find_scales(
    groups: Tensor, search: ScaleSearch, dtype: torch.dtype, importance: Tensor | None = None
) -> Tensor:
    """One scale for each row of `groups` [..., size]; returned in fp32, exact in `dtype`.

    `minmax` is the largest absolute weight over 7.5. `mse` is the one of `SHRINK_FACTORS` of it
    with the least squared error of the weights read back, each counted `importance` (broadcast to
    `groups`) times. A group of zeros gets the scale 1.
    """
    largest = groups.abs().amax(dim=-1)
    widest = torch.where(largest == 0, torch.ones_like(largest), largest / HALF_RANGE)
    best = rounded(widest, dtype)
    if search == "minmax":
        return best
    least = _error(groups, best, importance)
    for factor in SHRINK_FACTORS.to(groups.device):
        scales = rounded(widest * factor, dtype)
        error = _error(groups, scales, importance)
        better = error < least
        best = torch.where(better, scales, best)
        least = torch.where(better, error, least)
    return best


def rounded(scales: Tensor, dtype: torch.dtype) -> Tensor:
    """`scales` as they are once stored in `dtype`: never 0, in fp32."""
    return scales.to(dtype).float().clamp(min=torch.finfo(dtype).tiny)


def to_codes(groups: Tensor, scales: Tensor) -> Tensor:
    """Codes of `groups` [..., size] with `scales` [...]; whole numbers in fp32."""
    return torch.clamp(torch.round(groups / scales[..., None]), CODE_MIN, CODE_MAX)


def from_codes(codes: Tensor, scales: Tensor) -> Tensor:
    return codes * scales[..., None]


def _error(groups: Tensor, scales: Tensor, importance: Tensor | None) -> Tensor:
    squared = (from_codes(to_codes(groups, scales), scales) - groups).square()
    return (squared if importance is None else squared * importance).sum(dim=-1)


def quantize_nearest(
    weight: Tensor, group_size: int, search: ScaleSearch, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Codes [out, in] (int8) and scales [out, in / group_size] of `weight` [out, in], rounded alone."""
    groups = weight.float().reshape(len(weight), -1, group_size)
    scales = find_scales(groups, search, dtype)
    return to_codes(groups, scales).flatten(1).to(torch.int8), scales


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """The weight [out, in] that codes [out, in] and scales [out, groups] stand for, in fp32."""
    groups = codes.float().reshape(*scales.shape, -1)
    return from_codes(groups, scales).flatten(1)
