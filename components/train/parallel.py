"""Many ranks: DeepSpeed ZeRO stage 1 (arXiv 1910.02054) behind the same interface as one rank.

Each rank holds the weights, and the optimiser state of its own share of them. Ranks are started by
torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.train.update import STATE_NAMES, AdamWSettings, Update, parameter_groups


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def load_operators(folder: Path) -> None:
    """Compile what DeepSpeed runs on this machine into `folder`, or load what lies there.

    torch guards a compilation with a file that a killed process leaves behind, and for which every
    later process would wait for ever. A flock ends with the process that holds it: whoever has it
    may remove such a file.
    """
    from deepspeed.comm.torch import build_shm_op

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    # Of its own accord torch starts a compiler on every core of the machine, each of a GiB: more
    # than a pod with a share of the machine has.
    os.environ.setdefault("MAX_JOBS", str(torch.get_num_threads()))
    with (folder / "compiling").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for left_behind in folder.glob("*/lock"):
            left_behind.unlink()
        build_shm_op()


def operators_folder() -> Path:
    """Ours alone, so that no other program's compilation is disturbed."""
    cache = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    return Path(cache) / "headrace"


class ZeroUpdate(Update):
    """Sums of losses over many ranks to new weights, by DeepSpeed's engine."""

    def __init__(self, model: nn.Module, settings: AdamWSettings, max_grad_norm: float) -> None:
        import deepspeed

        self.rank, self.world = rank(), world_size()
        self._device = next(model.parameters()).device
        self._model = model
        if self._device.type == "cpu":
            load_operators(operators_folder())
        deepspeed.init_distributed(
            dist_backend="nccl" if self._device.type == "cuda" else "gloo", verbose=False
        )
        adamw = torch.optim.AdamW(
            [group for group in parameter_groups(model, settings.weight_decay) if group["params"]],
            lr=0.0,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
        )
        engine: Any
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=adamw,
            config={
                "train_micro_batch_size_per_gpu": 1,
                # The loop says when a batch is complete, however many micro-batches it has.
                "managed_gradient_accumulation": False,
                "gradient_clipping": max_grad_norm,
                "zero_optimization": {"stage": 1},
                "steps_per_print": 1 << 40,
            },
        )
        self._engine = engine
        self._trained = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }

    def backward(self, total: Tensor) -> None:
        self._engine.backward(total, scale_wrt_gas=False)

    def sum(self, values: Tensor) -> Tensor:
        summed = values.double().to(self._device)
        torch.distributed.all_reduce(summed)
        return summed

    def gradients_are_finite(self) -> bool:
        norm = torch.nn.utils.get_total_norm(self._gradients())
        broken = torch.isfinite(norm).logical_not().double().reshape(1)
        return bool(self.sum(broken)[0] == 0)

    def apply(self, weight: float, learning_rate: float) -> float:
        # The engine averages over the ranks; what it averages are sums.
        torch._foreach_mul_(self._gradients(), self.world / weight)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def discard(self) -> None:
        self._engine.optimizer.zero_grad(set_to_none=True)
        self._model.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state as whole

        self._link_state()
        found = {
            f"{name}.{weight_name}": whole(weight, name)
            for weight_name, weight in self._trained.items()
            for name in STATE_NAMES
        }
        return {key: value.cpu() for key, value in found.items() if value is not None}

    def restore(self, state: Mapping[str, Tensor], num_updates: int) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        weights = {name: weight.detach().clone() for name, weight in self._trained.items()}
        # DeepSpeed makes its state at the first update: one of nothing, at learning rate 0.
        self.backward(sum((weight.sum() * 0 for weight in self._trained.values()), torch.zeros(())))
        self.apply(1.0, 0.0)
        self._link_state()
        for name, weight in self._trained.items():
            weight.data.copy_(weights[name])
            safe_set_full_fp32_param(weight, weights[name])
            for kind in STATE_NAMES:
                if f"{kind}.{name}" in state:
                    value = state[f"{kind}.{name}"].to(self._device)
                    safe_set_full_optimizer_state(weight, value, kind)
        for entry in self._engine.optimizer.optimizer.state.values():
            entry["step"].fill_(float(num_updates))

    def _link_state(self) -> None:
        """Show DeepSpeed where every group's state lies.

        It looks once, after the first group's first update, when the second group has none yet.
        """
        from deepspeed.utils import lazy_init_hp_params_optimizer_state as link

        zero = self._engine.optimizer
        for weights, share in zip(
            zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True
        ):
            if zero.optimizer.state.get(share):
                link(weights, share, zero.optimizer.state)

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._trained.values() if weight.grad is not None]
