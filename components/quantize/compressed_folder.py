"""A quantized model as a compressed-tensors folder (`pack-quantized`), as transformers reads it.

It is vLLM's format too, but loading it there was not tried; vLLM may use its own type of KV cache
whatever the folder says (`kv_cache_dtype`).
Eight int4 codes lie in each int32. Beside them stand the scales, and for each attention layer the
two scales of its int8 keys and values.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import compressed_tensors
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    QuantizationStrategy,
    QuantizationType,
)
from safetensors.torch import save_file
from torch import Tensor

from components.model.llama import WEIGHTS, copy_tokenizer
from components.quantize.int8_cache import LayerScales

FORMAT = "pack-quantized"
NUM_BITS = 4


class Quantized(NamedTuple):
    codes: Tensor
    """[out, in], int8 in -8..7."""
    scales: Tensor
    """[out, in / group size], fp32."""


def quantization_config(group_size: int, ignore: list[str]) -> dict[str, Any]:
    """The `quantization_config` of config.json, checked against compressed-tensors' own schema.

    `ignore` names the linear layers that stay as they are.
    """
    weights = QuantizationArgs(
        num_bits=NUM_BITS,
        type=QuantizationType.INT,
        symmetric=True,
        strategy=QuantizationStrategy.GROUP,
        group_size=group_size,
    )
    keys_and_values = QuantizationArgs(
        num_bits=8,
        type=QuantizationType.INT,
        symmetric=True,
        strategy=QuantizationStrategy.TENSOR,
        dynamic=False,
    )
    config = QuantizationConfig(
        config_groups={
            "group_0": QuantizationScheme(targets=["Linear"], weights=weights, format=FORMAT)
        },
        format=FORMAT,
        quantization_status=QuantizationStatus.COMPRESSED,
        kv_cache_scheme=keys_and_values,
        ignore=ignore,
    )
    return {"version": compressed_tensors.__version__, **config.model_dump(mode="json")}


def write_compressed(
    folder: Path,
    model: Any,
    tokenizer_folder: Path,
    quantized: Mapping[str, Quantized],
    cache: list[LayerScales],
    *,
    group_size: int,
    dtype: torch.dtype,
) -> None:
    """Write `model` with its `quantized` layers packed and everything else in `dtype`.

    config.json names fp32 as the type to compute in: a reader that follows it gets the numbers
    measured here; one that does not (vLLM takes 16 bits) loads the same weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in quantized
    ]
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if layer in quantized:
            codes, scales = quantized[layer]
            tensors[f"{layer}.weight_packed"] = pack_to_int32(codes, NUM_BITS)
            tensors[f"{layer}.weight_scale"] = scales.to(dtype)
            tensors[f"{layer}.weight_shape"] = torch.tensor(codes.shape)
        else:
            tensors[name] = value.to(dtype)
    for index, layer_scales in enumerate(cache):
        attention = f"model.layers.{index}.self_attn"
        tensors[f"{attention}.k_scale"] = layer_scales.keys
        tensors[f"{attention}.v_scale"] = layer_scales.values
    contiguous = {name: tensors[name].cpu().contiguous() for name in sorted(tensors)}
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    config = model.config.to_dict() | {
        "architectures": [type(model).__name__],
        "dtype": "float32",
        "quantization_config": quantization_config(group_size, kept),
    }
    (folder / "config.json").write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    model.generation_config.save_pretrained(folder)
    copy_tokenizer(tokenizer_folder, folder)
