"""Pack the model's linear layers into int4 and its key-value cache into int8; measure the damage."""

import copy
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, DynamicCache

from components.contract import Report, Sink, StageIO
from components.errors import UserError
from components.measure.bits import document_bits, open_spread
from components.measure.choices import CHANCE, read_items
from components.measure.choosing import chat_contexts, choose
from components.measure.ratio import mean_with_error, ratio_with_error
from components.model.compressed import load_compressed, num_bytes, unpack
from components.model.llama import WEIGHTS, load_model, num_parameters
from components.quantize import int8_cache
from components.quantize.calibration import cache_scales, calibration_rows, input_hessians
from components.quantize.compressed_folder import Quantized, write_compressed
from components.quantize.gptq import quantize_gptq
from components.quantize.int4 import dequantize, quantize_nearest
from components.quantize.int8_cache import LayerScales
from components.quantize.int8_cache import int8_cache as empty_int8_cache
from components.quantize.params import QuantizeParams
from components.tokens import TokenDocuments

PROBE_ROWS = 4


def run(params: QuantizeParams, io: StageIO, sink: Sink) -> Report:
    began_at = time.perf_counter()
    torch.set_num_threads(io.num_workers)
    source = io.inputs["dpo"] / "model"
    model = load_model(source)
    layers = linear_layers(model, params.group_size)
    rows = read_calibration(params, io)
    dtype: torch.dtype = getattr(torch, params.unquantized_dtype)

    sink.info(f"int4 for {len(layers)} layers, {params.method}, groups of {params.group_size}")
    quantized = quantize_layers(model, layers, rows, params, dtype)
    reference = fake_quantized(model, quantized, dtype)
    scales = cache_scales(reference, rows)
    folder = io.out / "model"
    write_compressed(
        folder, model, source, quantized, scales, group_size=params.group_size, dtype=dtype
    )
    loaded = load_compressed(folder)
    bytes_packed = num_bytes(loaded)
    unpack(loaded)
    probe = rows[:PROBE_ROWS].to(model.device)
    report: Report = {
        "num_parameters": num_parameters(model),
        "num_quantized_parameters": sum(layer.weight.numel() for layer in layers.values()),
        "num_calibration_tokens": rows.numel(),
        "weights": weight_bytes(model, layers, quantized, dtype)
        | {
            "bytes_on_disk_before": (source / WEIGHTS).stat().st_size,
            "bytes_on_disk": (folder / WEIGHTS).stat().st_size,
            "bytes_in_memory_before": num_bytes(model),
            "bytes_in_memory": bytes_packed,
            "bytes_in_memory_once_unpacked": num_bytes(loaded),
            "squared_error_fraction": squared_error_fraction(layers, quantized),
        },
        "cache": cache_report(model, reference, scales, probe),
        "max_loaded_logit_difference": loaded_difference(reference, loaded, scales, probe),
    }
    weights = report["weights"]
    weights["compression_ratio"] = weights["bytes_on_disk_before"] / weights["bytes_on_disk"]
    report["damage"] = measure_damage(
        {"dpo": model, "int4": reference, "int4_int8_cache": loaded}, params, io, sink
    )
    return report | {"elapsed_s": time.perf_counter() - began_at}


def linear_layers(model: Any, group_size: int) -> dict[str, nn.Linear]:
    """The layers to pack: every linear one but `lm_head`.

    lm_head and the embeddings stay: each of their rows belongs to one token and is read by itself,
    so its errors do not average out, and vLLM's reader has no packed form of them. Raises UserError
    if a layer's inputs are not a multiple of the group.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }
    for name, layer in layers.items():
        if layer.in_features % group_size:
            raise UserError(
                f"quantize.group_size is {group_size}; {name} has {layer.in_features} inputs, "
                "which is no multiple of it",
                f"use a divisor of {np.gcd.reduce([x.in_features for x in layers.values()])}",
            )
    return layers


def read_calibration(params: QuantizeParams, io: StageIO) -> Tensor:
    """Rows of training tokens, of documents drawn by the seed."""
    documents = TokenDocuments(io.inputs["tokenize"] / "tokens" / "train")
    order = np.random.default_rng(io.seed).permutation(len(documents)).tolist()
    return calibration_rows(documents, order, params.calibration_tokens, params.bits.context_tokens)


def quantize_layers(
    model: Any,
    layers: Mapping[str, nn.Linear],
    rows: Tensor,
    params: QuantizeParams,
    dtype: torch.dtype,
) -> dict[str, Quantized]:
    """Codes and scales of every layer, found where the model is and kept on the CPU."""
    settings = (params.group_size, params.scale_search, dtype)
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    if params.method == "nearest":
        found = {name: quantize_nearest(weight, *settings) for name, weight in weights.items()}
    else:
        hessians = input_hessians(model, layers, rows)
        found = {
            name: quantize_gptq(weight, hessians[name], *settings)
            for name, weight in weights.items()
        }
    return {name: Quantized(codes.cpu(), scales.cpu()) for name, (codes, scales) in found.items()}


def fake_quantized(model: Any, quantized: Mapping[str, Quantized], dtype: torch.dtype) -> Any:
    """The model that the packed one must equal: all its numbers went through what is stored."""
    reference = copy.deepcopy(model)
    state = {name: value.to(dtype).float() for name, value in reference.state_dict().items()}
    state |= {
        f"{name}.weight": dequantize(layer.codes, layer.scales).to(model.device)
        for name, layer in quantized.items()
    }
    reference.load_state_dict(state)
    return reference.eval()


def weight_bytes(
    model: Any,
    layers: Mapping[str, nn.Linear],
    quantized: Mapping[str, Quantized],
    dtype: torch.dtype,
) -> dict[str, float]:
    """What the packed layers take, and how much of the model they are."""
    before = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers.values())
    packed = sum(
        layer.codes.numel() // 2 + layer.scales.numel() * dtype.itemsize
        for layer in quantized.values()
    )
    num_packed = sum(layer.codes.numel() for layer in quantized.values())
    return {
        "quantized_layers_bytes_before": before,
        "quantized_layers_bytes": packed,
        "quantized_layers_compression_ratio": before / packed,
        "bits_per_quantized_weight": 8 * packed / num_packed,
        "quantized_fraction": num_packed / num_parameters(model),
    }


def squared_error_fraction(
    layers: Mapping[str, nn.Linear], quantized: Mapping[str, Quantized]
) -> float:
    """Squared error of all packed weights over their squared size."""
    error = size = 0.0
    for name, layer in layers.items():
        weight = layer.weight.detach().cpu()
        error += float((dequantize(*quantized[name]) - weight).square().sum())
        size += float(weight.square().sum())
    return error / size


@torch.inference_mode()
def cache_report(
    model: Any, reference: Any, scales: list[LayerScales], probe: Tensor
) -> dict[str, float]:
    """Bytes of a full-precision and of an int8 cache that hold the same tokens."""
    full: Any = DynamicCache(config=model.config)
    small = empty_int8_cache(scales)
    reference(probe, past_key_values=full, use_cache=True, logits_to_keep=1)
    reference(probe, past_key_values=small, use_cache=True, logits_to_keep=1)
    before, after = int8_cache.num_bytes(full), int8_cache.num_bytes(small)
    return {
        "bytes_per_token_before": before / probe.numel(),
        "bytes_per_token": after / probe.numel(),
        "compression_ratio": before / after,
    }


@torch.inference_mode()
def loaded_difference(
    reference: Any, loaded: Any, scales: list[LayerScales], probe: Tensor
) -> float:
    """Largest difference of logits: the folder read by transformers, and what was measured here.

    The reference reads keys and values from a cache that holds int8, the loaded model goes through
    the library's own hooks; both read the rows in two parts, the second from the first one's cache.
    """
    half = probe.shape[1] // 2
    library_cache: Any = DynamicCache(config=loaded.config)
    logits = [
        torch.cat(
            [
                model(part, past_key_values=cache, use_cache=True).logits
                for part in (probe[:, :half], probe[:, half:])
            ],
            dim=1,
        )
        for model, cache in ((reference, empty_int8_cache(scales)), (loaded, library_cache))
    ]
    return float((logits[0] - logits[1]).abs().max())


def measure_damage(
    models: Mapping[str, Any], params: QuantizeParams, io: StageIO, sink: Sink
) -> Report:
    """Bits per byte and task accuracy of each model, and what each step costs, pair by pair."""
    tokenizer: Any = AutoTokenizer.from_pretrained(
        io.inputs["dpo"] / "model", local_files_only=True
    )
    documents, text_bytes = open_spread(
        TokenDocuments(io.inputs["tokenize"] / "tokens" / "valid"), params.bits.max_tokens
    )
    items = read_items(
        io.inputs["dedup"], "valid", params.task.rules, params.task.num_items, io.seed
    )
    contexts = chat_contexts(tokenizer, items)
    figures: Report = {"task_chance": CHANCE, "num_task_items": len(items)}
    bits, correct = {}, {}
    for done, (name, model) in enumerate(models.items()):
        sink.progress(done, len(models), "models measured", model=name)
        bits[name] = document_bits(
            model,
            documents,
            context=params.bits.context_tokens,
            stride=params.bits.stride_tokens,
        )
        correct[name] = choose(model, tokenizer, items, contexts).mutual_information
        for figure, (value, error) in {
            "bits_per_byte": ratio_with_error(bits[name], text_bytes),
            "bits_per_byte_change": ratio_with_error(bits[name] - bits["dpo"], text_bytes),
            "task_accuracy": mean_with_error(correct[name]),
            "task_accuracy_change": mean_with_error(correct[name] - correct["dpo"]),
        }.items():
            if figure.endswith("change") and name == "dpo":
                continue
            figures.setdefault(figure, {})[name] = value
            figures.setdefault(f"{figure}_se", {})[name] = error
    sink.progress(len(models), len(models), "models measured")
    return figures
