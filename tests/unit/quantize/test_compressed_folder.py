import json
from pathlib import Path

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from components.errors import DataError, UserError
from components.model.compressed import load_compressed, num_bytes, unpack
from components.model.llama import load_model
from components.quantize.calibration import cache_scales, calibration_rows
from components.quantize.compressed_folder import Quantized, write_compressed
from components.quantize.int4 import quantize_nearest
from components.quantize.int8_cache import int8_cache
from components.quantize.stage import fake_quantized, linear_layers
from tests.small_models import write_model

IDS = torch.randint(9, 300, (2, 20), generator=torch.Generator().manual_seed(2))
DTYPE = torch.bfloat16


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder, and the compressed one made from it."""
    folder = tmp_path_factory.mktemp("models")
    source = write_model(folder / "dpo")
    model = load_model(source)
    quantized = {
        name: Quantized(*quantize_nearest(layer.weight.detach(), 32, "mse", DTYPE))
        for name, layer in linear_layers(model, 32).items()
    }
    scales = cache_scales(fake_quantized(model, quantized, DTYPE), IDS)
    target = folder / "quantized"
    write_compressed(target, model, source, quantized, scales, group_size=32, dtype=DTYPE)
    return source, target


def test_transformers_gives_the_very_logits_of_the_weights_and_states_that_were_meant(
    written: tuple[Path, Path],
) -> None:
    source, target = written
    model = load_model(source)
    quantized = {
        name: Quantized(*quantize_nearest(layer.weight.detach(), 32, "mse", DTYPE))
        for name, layer in linear_layers(model, 32).items()
    }
    reference = fake_quantized(model, quantized, DTYPE)
    scales = cache_scales(reference, IDS)
    loaded = AutoModelForCausalLM.from_pretrained(target).eval()
    with torch.inference_mode():
        expected = reference(IDS, past_key_values=int8_cache(scales), use_cache=True).logits
        cache = DynamicCache(config=loaded.config)
        found = loaded(IDS, past_key_values=cache, use_cache=True).logits
        unquantized = model(IDS).logits
    assert torch.equal(expected, found)
    assert not torch.equal(expected, unquantized)


def test_the_folder_is_a_whole_model_with_its_tokenizer(written: tuple[Path, Path]) -> None:
    source, target = written
    text = "Deletes the bucket."
    expected = AutoTokenizer.from_pretrained(source)(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(target)(text)["input_ids"] == expected
    generated = load_compressed(target).generate(IDS[:, :5], max_new_tokens=3, do_sample=False)
    assert generated.shape[1] <= 8


def test_four_bits_a_weight_and_their_scales_lie_on_disk(written: tuple[Path, Path]) -> None:
    source, target = written
    tensors = load_file(target / "model.safetensors")
    down = "model.layers.1.mlp.down_proj"
    assert tensors[f"{down}.weight_packed"].shape == (64, 96 // 8)
    assert tensors[f"{down}.weight_packed"].dtype == torch.int32
    assert tensors[f"{down}.weight_scale"].shape == (64, 96 // 32)
    assert tensors[f"{down}.weight_scale"].dtype == DTYPE
    assert tensors[f"{down}.weight_shape"].tolist() == [64, 96]
    assert tensors["lm_head.weight"].dtype == DTYPE
    assert f"{down}.weight" not in tensors
    whole = load_file(source / "model.safetensors")
    codes_of_one = tensors[f"{down}.weight_packed"][0, 0].item() & 0xFFFFFFFF
    first = [((codes_of_one >> 4 * place) & 15) - 8 for place in range(8)]
    scale = tensors[f"{down}.weight_scale"][0, 0].item()
    for code, weight in zip(first, whole[f"{down}.weight"][0, :8].tolist(), strict=True):
        assert code == max(-8, min(7, round(weight / scale)))


def test_weights_stay_packed_in_memory_until_they_are_used(written: tuple[Path, Path]) -> None:
    source, target = written
    loaded = load_compressed(target)
    packed = num_bytes(loaded)
    unpack(loaded)
    assert packed < num_bytes(load_model(source)) < num_bytes(loaded)


def test_the_config_fits_the_schema_and_what_vllm_asks_of_it(written: tuple[Path, Path]) -> None:
    # vLLM parses the two parts separately, by compressed-tensors' own models, then wants static
    # group-wise weights without activations in pack-quantized, and one symmetric scale of 8 bits
    # for a layer's keys and one for its values.
    config = json.loads((written[1] / "config.json").read_text())["quantization_config"]
    kv = QuantizationArgs.model_validate(config.pop("kv_cache_scheme"))
    parsed = QuantizationConfig.model_validate(config)
    assert config["quant_method"] == "compressed-tensors"
    assert parsed.format == "pack-quantized"
    (scheme,) = parsed.config_groups.values()
    assert scheme.targets == ["Linear"]
    assert scheme.input_activations is None
    assert scheme.weights is not None
    assert (scheme.weights.num_bits, scheme.weights.strategy) == (4, "group")
    assert scheme.weights.dynamic is False
    assert scheme.weights.group_size == 32
    assert parsed.ignore == ["lm_head"]
    assert (kv.num_bits, kv.type, kv.strategy, kv.symmetric) == (8, "int", "tensor", True)
    tensors = load_file(written[1] / "model.safetensors")
    assert tensors["model.layers.0.self_attn.k_scale"].numel() == 1


def test_a_truncated_folder_is_named(written: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model"):
        load_compressed(tmp_path)
    (tmp_path / "config.json").write_text((written[1] / "config.json").read_text())
    whole = (written[1] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole compressed model"):
        load_compressed(tmp_path)


def test_a_group_that_does_not_divide_names_the_layer_and_what_would(
    written: tuple[Path, Path],
) -> None:
    with pytest.raises(UserError, match=r"mlp\.down_proj has 96 inputs") as raised:
        linear_layers(load_model(written[0]), 64)
    assert raised.value.hint == "use a divisor of 32"


def test_calibration_takes_documents_in_order_and_shortens_rows_if_it_must() -> None:
    documents = [list(range(10)), list(range(100, 140)), list(range(200, 240))]
    rows = calibration_rows(documents, [2, 0, 1], num_tokens=64, length=32)
    assert rows[:, 0].tolist() == [200, 100]
    assert calibration_rows(documents[:1], [0], num_tokens=64, length=32).shape == (1, 8)
