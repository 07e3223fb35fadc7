"""From gradients to new weights, on one rank: AdamW with decoupled decay and clipping.

`components.train.parallel` does the same over many ranks. Both take sums, not means: the gradient
of a summed loss is divided by the global weight when it is applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

STATE_NAMES = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class AdamWSettings:
    """arXiv 1711.05101, algorithm 2. Decay applies to matrices, not to norms' vectors."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class Update(Protocol):
    """How the loop turns summed losses into new weights."""

    rank: int
    world: int

    def backward(self, total: Tensor) -> None:
        """Add the gradient of a summed loss."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks; float64."""

    def gradients_are_finite(self) -> bool:
        """Whether every gradient on every rank is a finite number."""

    def apply(self, weight: float, learning_rate: float) -> float:
        """Divide by `weight`, clip, update the weights; return the norm before clipping."""

    def discard(self) -> None:
        """Forget the gradients."""

    def state(self) -> dict[str, Tensor]:
        """Whole optimiser state on the CPU, `<name>.<weight>`; every rank must call it."""

    def restore(self, state: Mapping[str, Tensor], num_updates: int) -> None:
        """Set it. Weights must have been restored before."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices decay; vectors (norms, biases) do not."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]


class LocalUpdate(Update):
    """One rank, plain torch."""

    rank = 0
    world = 1

    def __init__(self, model: nn.Module, settings: AdamWSettings, max_grad_norm: float) -> None:
        self._weights = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self._max_grad_norm = max_grad_norm
        groups = [
            group for group in parameter_groups(model, settings.weight_decay) if group["params"]
        ]
        self._adamw = torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=True,
        )
        self._norm: Tensor | None = None

    def backward(self, total: Tensor) -> None:
        self._norm = None
        torch.autograd.backward(total)

    def sum(self, values: Tensor) -> Tensor:
        return values.double()

    def gradients_are_finite(self) -> bool:
        return bool(torch.isfinite(self._sum_norm()))

    def apply(self, weight: float, learning_rate: float) -> float:
        norm = float(self._sum_norm()) / weight
        factor = min(1.0, self._max_grad_norm / (norm + 1e-6)) / weight
        torch._foreach_mul_(self._gradients(), factor)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self.discard()
        return norm

    def discard(self) -> None:
        self._norm = None
        self._adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        return {
            f"{name}.{weight_name}": self._adamw.state[weight][name].cpu()
            for weight_name, weight in self._weights.items()
            if weight in self._adamw.state
            for name in STATE_NAMES
        }

    def restore(self, state: Mapping[str, Tensor], num_updates: int) -> None:
        for weight_name, weight in self._weights.items():
            if f"{STATE_NAMES[0]}.{weight_name}" not in state:
                continue
            entry = {name: state[f"{name}.{weight_name}"].to(weight.device) for name in STATE_NAMES}
            step = torch.tensor(float(num_updates), device=weight.device)
            self._adamw.state[weight] = {"step": step, **entry}

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._weights.values() if weight.grad is not None]

    def _sum_norm(self) -> Tensor:
        if self._norm is None:
            self._norm = torch.nn.utils.get_total_norm(self._gradients())
        return self._norm
