"""Models and packed batches for the GPU's tests: uneven documents, grouped queries."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from components.model.llama import Attention, build_model, llama_config
from components.model.packed import IGNORED

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
VOCABULARY = 512
ROWS = ((300, 1, 180, 31), (512,), (2, 400, 110))
"""Lengths of the documents in each row."""
ROW_LENGTH = 512


def model(attention: Attention, *, seed: int = 0, initializer_range: float = 0.02) -> Any:
    """Two layers of width 256 with four query heads of 64 for two of keys and values, fp32."""
    config = llama_config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        max_length=ROW_LENGTH,
        rope_theta=10000.0,
        norm_eps=1e-5,
        initializer_range=initializer_range,
    )
    return build_model(config, seed=seed, attention=attention)


def batch(seed: int, rows: Sequence[Sequence[int]] = ROWS) -> dict[str, Tensor]:
    """Packed rows (rows, 512) of a walk through the vocabulary: there is something to learn.

    Each token is the one before plus one of three steps, so a bigram has log(3) nats. On the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, 4, (len(rows), ROW_LENGTH + 1), generator=generator)
    ids = steps.cumsum(1) % (VOCABULARY - 9) + 9
    positions = torch.stack([torch.cat([torch.arange(n) for n in sizes]) for sizes in rows])
    targets = ids[:, 1:].clone()
    targets[:, :-1][positions[:, 1:] == 0] = IGNORED
    return {"input_ids": ids[:, :-1], "position_ids": positions, "targets": targets}


def on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected, in fp64."""
    wanted = expected.detach().double().cpu()
    return float((found.detach().double().cpu() - wanted).norm() / wanted.norm())


def loss_and_gradients(net: Any, measure: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
    """`measure(net)` and its gradient over all weights, one vector."""
    total = measure(net)
    gradients = torch.autograd.grad(total, list(net.parameters()))
    return total.detach(), torch.cat([gradient.flatten() for gradient in gradients])
