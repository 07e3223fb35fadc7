"""Cross-entropy of a linear layer without ever holding all its logits.

A chunk's logits become probabilities and then the gradient in place, while they are in the cache;
the two products that need them follow at once. Backward only scales what forward found (the idea
of Liger Kernel, arXiv 2410.10989, section 3.2).
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Logits held at a time: 4 MB on a CPU, within its cache; 256 MB in bf16 on a GPU."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood in nats, 0-d, fp32.

    `hidden` (n, d), `weight` (vocabulary, d), `targets` (n,), all counted. Under autocast the
    products are in its type; the softmax is always fp32.
    """
    function: Any = _LinearCrossEntropy
    total: Tensor = function.apply(hidden, weight, targets)
    return total


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        with torch.autocast(kind, enabled=False):
            return _forward(ctx, hidden, weight, targets, dtype)

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (scale,) = scales
        hidden_grad, weight_grad = ctx.saved_tensors
        return (
            hidden_grad * scale if ctx.needs_input_grad[0] else None,
            weight_grad * scale if ctx.needs_input_grad[1] else None,
            None,
        )


def _forward(
    ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
) -> Tensor:
    wants_gradient = any(ctx.needs_input_grad)
    weight_grad = torch.zeros_like(weight, dtype=torch.float32) if wants_gradient else None
    hidden_grad = torch.empty_like(hidden) if wants_gradient else None
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    cast_weight = weight.to(dtype)
    rows = max(1, CHUNK_LOGITS[hidden.device.type] // weight.shape[0])
    for begin in range(0, hidden.shape[0], rows):
        chunk = hidden[begin : begin + rows].to(dtype)
        target = targets[begin : begin + rows].unsqueeze(1)
        logits = chunk @ cast_weight.T
        # 16-bit logits are read as they are: a copy in fp32 would cost a third of the traffic.
        probability = torch.softmax(logits, dim=-1, dtype=torch.float32)
        # log(sum exp) from the likeliest entry, whose probability cannot underflow.
        log_sum = logits.amax(-1).float() - probability.amax(-1).log()
        total += (log_sum - logits.gather(1, target).squeeze(1).float()).sum()
        if weight_grad is None or hidden_grad is None:
            continue
        minus_one = torch.full_like(target, -1, dtype=torch.float32)
        gradient = probability.scatter_add_(1, target, minus_one)
        gradient = gradient.to(dtype)
        hidden_grad[begin : begin + rows] = gradient @ cast_weight
        if dtype == torch.float32:
            weight_grad.addmm_(gradient.T, chunk)
        else:
            weight_grad += gradient.T @ chunk
    if weight_grad is not None:
        ctx.save_for_backward(hidden_grad, weight_grad.to(weight.dtype))
    return total
