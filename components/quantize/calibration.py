"""What the model's layers see on training text: inputs of the linear layers, and keys and values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from components.quantize.gptq import input_hessian
from components.quantize.int8_cache import LayerScales, state_scales

ROWS_PER_BATCH = 8


def calibration_rows(
    documents: Sequence[Any], order: Sequence[int], num_tokens: int, length: int
) -> Tensor:
    """About `num_tokens` token ids as rows [N, length]: the documents' beginnings, in `order`.

    Documents shorter than a row are passed over; if all are, the rows get shorter.
    """
    wanted = max(1, num_tokens // length)
    rows: list[Any] = []
    for index in order:
        if len(documents[index]) >= length:
            rows.append(np.asarray(documents[index][:length], dtype=np.int64))
        if len(rows) == wanted:
            break
    if not rows and length > 2:
        return calibration_rows(documents, order, num_tokens, length // 2)
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def input_hessians(model: Any, layers: Mapping[str, nn.Linear], rows: Tensor) -> dict[str, Tensor]:
    """X^T X of each layer's inputs over all tokens of `rows` (on any device), on the model's."""
    hessians: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(_collector(hessians, name))
        for name, layer in layers.items()
    ]
    try:
        for first in range(0, len(rows), ROWS_PER_BATCH):
            batch = rows[first : first + ROWS_PER_BATCH].to(model.device)
            model(batch, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return hessians


def _collector(hessians: dict[str, Tensor], name: str) -> Any:
    def collect(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        part = input_hessian(inputs[0].flatten(0, -2))
        hessians[name] = hessians[name] + part if name in hessians else part

    return collect


@torch.no_grad()
def cache_scales(model: Any, rows: Tensor) -> list[LayerScales]:
    """Scales that hold every key (after RoPE) and value that `model` makes of `rows`, by layer."""
    largest: list[LayerScales] = []
    for first in range(0, len(rows), ROWS_PER_BATCH):
        cache: Any = DynamicCache(config=model.config)
        batch = rows[first : first + ROWS_PER_BATCH].to(model.device)
        model(batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        found = [
            LayerScales(layer.keys.abs().amax(), layer.values.abs().amax())
            for layer in cache.layers
        ]
        largest = [
            LayerScales(torch.maximum(a.keys, b.keys), torch.maximum(a.values, b.values))
            for a, b in zip(largest or found, found, strict=True)
        ]
    return [
        LayerScales(state_scales(layer.keys).reshape(1), state_scales(layer.values).reshape(1))
        for layer in largest
    ]
