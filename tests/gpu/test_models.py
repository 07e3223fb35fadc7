"""What is measured of a model on a GPU is what is measured on a CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from components.dpo.encoded import with_reference
from components.dpo.objective import all_batches, pair_objective
from components.measure.bits import document_bits
from components.model.compressed import load_compressed, num_bytes, unpack
from components.model.generate import sample
from components.model.llama import load_model
from components.model.logprobs import response_logprobs
from components.model.rows import ResponseRow
from components.quantize.calibration import cache_scales, input_hessians
from components.quantize.compressed_folder import Quantized, write_compressed
from components.quantize.gptq import quantize_gptq
from components.quantize.int8_cache import int8_cache
from components.quantize.stage import fake_quantized, linear_layers
from components.tokens import IM_END_ID
from components.train.loop import mean_loss
from tests.gpu.packed import CPU, GPU
from tests.small_models import small_model, small_tokenizer, write_model

IDS = torch.randint(9, 300, (4, 64), generator=torch.Generator().manual_seed(2))
PROMPTS = [IDS[row % 4, : 3 + row % 17].tolist() for row in range(40)]
CHOSEN = [ResponseRow([6, *range(20 + i, 40 + 2 * i), 7], 9) for i in range(16)]
REJECTED = [ResponseRow([6, *range(20 + i, 33 + i), 90 + i, 7], 9) for i in range(16)]


def test_greedy_answers_of_a_batch_are_the_cpus_tokens() -> None:
    tokenizer = small_tokenizer()
    answers = {}
    for device in (GPU, CPU):
        net = small_model().to(device)
        with torch.no_grad():
            net.lm_head.weight[IM_END_ID] *= 2  # now and then likeliest: rows leave one by one
        answers[device] = sample(
            net,
            tokenizer,
            PROMPTS,
            max_new_tokens=32,
            temperature=0.0,
            top_p=1.0,
            seed=0,
            batch_size=16,
        )
    assert answers[GPU] == answers[CPU]
    assert len({len(answer) for answer in answers[GPU]}) > 1


def test_drawn_answers_are_the_same_every_time() -> None:
    settings: dict[str, Any] = {
        "max_new_tokens": 32,
        "temperature": 1.0,
        "top_p": 0.9,
        "seed": 5,
        "batch_size": 16,
    }
    net, tokenizer = small_model(), small_tokenizer()
    first = sample(net, tokenizer, PROMPTS, **settings)
    assert sample(net, tokenizer, PROMPTS, **settings) == first


def test_log_probabilities_and_bits_are_the_cpus() -> None:
    net, on_cpu = small_model(), small_model().to(CPU)
    torch.testing.assert_close(
        response_logprobs(net, CHOSEN), response_logprobs(on_cpu, CHOSEN), rtol=1e-4, atol=1e-4
    )
    documents = [row.numpy() for row in IDS]
    found, expected = (document_bits(x, documents, context=32, stride=16) for x in (net, on_cpu))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_dpos_reference_is_the_policy_before_its_first_step_in_the_precision_it_trains_in(
    tmp_path: Path,
) -> None:
    policy = small_model(initializer_range=0.05)
    pairs, was_stored = with_reference((CHOSEN, REJECTED), policy, "weights", tmp_path)
    assert not was_stored
    exact = response_logprobs(policy.to(CPU), CHOSEN)
    torch.testing.assert_close(pairs.reference_chosen, exact, rtol=0.01, atol=0.05)
    assert with_reference((CHOSEN, REJECTED), policy.to(GPU), "weights", tmp_path)[1]
    figures = mean_loss(
        policy, all_batches(pairs, 64, 4), pair_objective("sigmoid", beta=0.1, label_smoothing=0.0)
    )
    # Padded rows there, packed ones here: kernels add in another order.
    assert figures["reward_margin"] == pytest.approx(0, abs=0.01)
    assert figures["loss_nats"] == pytest.approx(0.6931, abs=0.01)


def test_gptq_on_the_gpu_gives_the_cpus_codes() -> None:
    net, on_cpu = small_model(), small_model().to(CPU)
    layers = linear_layers(net, 32)
    hessians = input_hessians(net, layers, IDS)
    on_cpus = input_hessians(on_cpu, linear_layers(on_cpu, 32), IDS)
    same = total = 0
    for name, layer in layers.items():
        assert hessians[name].device == layer.weight.device
        torch.testing.assert_close(hessians[name].cpu(), on_cpus[name], rtol=1e-4, atol=1e-3)
        weight = layer.weight.detach()
        settings: Any = (32, "mse", torch.bfloat16)
        codes, scales = quantize_gptq(weight.cpu(), on_cpus[name], *settings)
        found, found_scales = (x.cpu() for x in quantize_gptq(weight, hessians[name], *settings))
        same += int((codes == found).sum())
        total += codes.numel()
        # A sum that is rounded the other way may tip a code, and the columns after it.
        torch.testing.assert_close(found_scales, scales, rtol=0.1, atol=0)
    assert same / total > 0.99


def test_transformers_gives_the_logits_of_the_weights_that_were_meant_from_the_packed_folder(
    tmp_path: Path,
) -> None:
    source = write_model(tmp_path / "dpo")
    net = load_model(source)
    layers = linear_layers(net, 32)
    hessians = input_hessians(net, layers, IDS)
    quantized = {}
    for name, layer in layers.items():
        found = quantize_gptq(layer.weight.detach(), hessians[name], 32, "mse", torch.bfloat16)
        quantized[name] = Quantized(*(tensor.cpu() for tensor in found))
    reference = fake_quantized(net, quantized, torch.bfloat16)
    scales = cache_scales(reference, IDS)
    folder = tmp_path / "int4"
    write_compressed(folder, net, source, quantized, scales, group_size=32, dtype=torch.bfloat16)
    loaded = load_compressed(folder)
    assert loaded.device == GPU
    packed = num_bytes(loaded)
    unpack(loaded)
    assert packed < num_bytes(loaded)
    ids = IDS.to(GPU)
    with torch.inference_mode():
        expected = reference(ids, past_key_values=int8_cache(scales), use_cache=True).logits
        cache: Any = DynamicCache(config=loaded.config)
        found = loaded(ids, past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
