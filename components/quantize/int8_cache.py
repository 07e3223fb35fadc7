"""A key-value cache that really holds int8, with one scale for a layer's keys and one for its values.

The numbers a model reads from it are those that compressed-tensors' hooks make of fresh keys and
values (`kv_cache_scheme`: int, 8 bits, per tensor, symmetric, static), so with the same scales both
give the same logits; here a token takes a quarter of fp32's bytes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

CODE_MIN, CODE_MAX = -128, 127
HALF_RANGE = (CODE_MAX - CODE_MIN) / 2


class LayerScales(NamedTuple):
    keys: Tensor
    values: Tensor


class Int8Layer(DynamicLayer):
    """One layer's keys and values, [batch, heads, tokens, head size] in int8."""

    def __init__(self, scales: LayerScales) -> None:
        super().__init__()
        self._scales = scales

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys = torch.tensor([], dtype=torch.int8, device=key_states.device)
        self.values = torch.tensor([], dtype=torch.int8, device=value_states.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new states; return all of them, read back, in the states' type."""
        keys, values = super().update(
            _codes(key_states, self._scales.keys), _codes(value_states, self._scales.values)
        )
        dtype = key_states.dtype
        return keys.to(dtype) * self._scales.keys, values.to(dtype) * self._scales.values


def int8_cache(scales: Sequence[LayerScales]) -> Any:
    """An empty cache for a model whose layers have these scales; pass it as `past_key_values`."""
    return Cache(layers=[Int8Layer(layer) for layer in scales])


def _codes(states: Tensor, scale: Tensor) -> Tensor:
    return torch.clamp(torch.round(states / scale), CODE_MIN, CODE_MAX).to(torch.int8)


def state_scales(largest: Tensor) -> Tensor:
    """The scale that holds states up to `largest` in absolute value."""
    return (largest / HALF_RANGE).clamp(min=torch.finfo(torch.float32).tiny)


def num_bytes(cache: Any) -> int:
    """Bytes of the keys and values that a cache holds."""
    return sum(
        states.numel() * states.element_size()
        for layer in cache.layers
        for states in (layer.keys, layer.values)
    )
