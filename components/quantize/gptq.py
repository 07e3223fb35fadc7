"""GPTQ: each column's rounding error is made up for by the columns still to come.

Frantar et al., arXiv 2210.17323, algorithm 1, with a group's scales found when its first column is
reached, on the weights as corrected so far (section 4, "grouping").
"""

import torch
from torch import Tensor

from components.quantize.int4 import ScaleSearch, find_scales, to_codes

DAMPING = 0.01
"""Share of the mean diagonal that is added to the Hessian's diagonal (the paper's 1%)."""


def input_hessian(inputs: Tensor) -> Tensor:
    """X^T X in fp64 of a layer's inputs [tokens, in]: the Hessian of its squared error, halved."""
    wide = inputs.double()
    return wide.T @ wide


def quantize_gptq(
    weight: Tensor, hessian: Tensor, group_size: int, search: ScaleSearch, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Codes [out, in] (int8) and scales [out, in / group_size] of `weight` [out, in].

    `hessian` is `input_hessian` of what the layer sees, on the weight's device. An input that is
    always 0 loses its weight: it never counts.
    """
    working = weight.double().clone()
    curvature = hessian.double().clone()
    diagonal = torch.diagonal(curvature)
    dead = diagonal == 0
    diagonal[dead] = 1
    working[:, dead] = 0
    diagonal += DAMPING * diagonal.mean()
    # Cholesky factor of the inverse, upper: row j holds how column j's error spreads to the right.
    spread = torch.linalg.cholesky(
        torch.cholesky_inverse(torch.linalg.cholesky(curvature)), upper=True
    )
    num_inputs = weight.shape[1]
    codes = torch.empty_like(weight, dtype=torch.int8)
    scales = weight.new_empty(weight.shape[0], num_inputs // group_size, dtype=torch.float32)
    for first in range(0, num_inputs, group_size):
        last = first + group_size
        scale = find_scales(working[:, first:last].float(), search, dtype)
        scales[:, first // group_size] = scale
        errors = working.new_empty(weight.shape[0], group_size)
        for column in range(first, last):
            current = working[:, column]
            code = to_codes(current[:, None].float(), scale)[:, 0]
            codes[:, column] = code.to(torch.int8)
            error = (current - (code * scale).double()) / spread[column, column]
            working[:, column:last] -= error[:, None] * spread[column, column:last]
            errors[:, column - first] = error
        working[:, last:] -= errors @ spread[first:last, last:]
    return codes, scales
