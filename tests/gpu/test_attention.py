"""The GPU's attention kernels against what they stand for."""

from typing import Any

import pytest
import torch
from torch import Tensor

from components.model.attention import document_lengths, varlen_attention
from components.model.packed import next_token_loss
from components.train.loop import autocast
from tests.gpu.packed import GPU, batch, loss_and_gradients, model, on, relative

SIZES = [1000, 1, 37, 512, 498, 2048]
"""Documents of two rows of 2,048."""
HEADS, KV_HEADS, SIZE = 12, 4, 64
SCALE = SIZE**-0.5


def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(QK^T) V in the inputs' type with a mask for other documents and later positions."""
    owner = torch.cat([torch.full((n,), i) for i, n in enumerate(SIZES)]).view(2, -1)
    place = torch.arange(2048)
    visible = (owner[:, :, None] == owner[:, None, :]) & (place[:, None] >= place)
    repeated = [tensor.repeat_interleave(HEADS // KV_HEADS, dim=1) for tensor in (key, value)]
    scores = query @ repeated[0].transpose(2, 3) * SCALE
    scores = scores.masked_fill(~visible[:, None].to(scores.device), -torch.inf)
    return (scores.softmax(-1) @ repeated[1]).transpose(1, 2)


def test_variable_length_attention_equals_a_masked_softmax_and_so_do_its_gradients() -> None:
    generator = torch.Generator(GPU).manual_seed(0)

    def draw(heads: int) -> Tensor:
        return torch.randn(2, heads, 2048, SIZE, generator=generator, device=GPU).bfloat16()

    inputs = [draw(HEADS), draw(KV_HEADS), draw(KV_HEADS)]
    wide = [tensor.double().requires_grad_() for tensor in inputs]
    narrow = [tensor.clone().requires_grad_() for tensor in inputs]
    expected = masked(*wide)
    lengths = torch.tensor(SIZES, device=GPU)
    found, _ = varlen_attention(None, *narrow, None, scaling=SCALE, lengths=lengths)
    upstream = torch.randn(found.shape, generator=generator, device=GPU).bfloat16()
    expected.backward(upstream.double())
    found.backward(upstream)
    # bf16 has 8 bits: a rounding is 2^-9 = 0.2% at most.
    assert relative(found, expected) < 0.005
    for name, got, want in zip("qkv", narrow, wide, strict=True):
        assert got.grad is not None
        assert want.grad is not None
        assert relative(got.grad, want.grad) < 0.01, name


def loss(net: Any, tensors: dict[str, Tensor]) -> Tensor:
    with autocast(GPU):
        total, weight = next_token_loss(
            net, tensors["input_ids"], tensors["position_ids"], tensors["targets"]
        )
    return total / weight


@pytest.mark.parametrize("attention", ["sdpa", "flex"])
def test_every_attention_gives_the_loss_and_the_gradient_of_the_variable_length_one(
    attention: Any,
) -> None:
    tensors = on(GPU, batch(0))
    want, want_gradient = loss_and_gradients(model("varlen"), lambda net: loss(net, tensors))
    got, gradient = loss_and_gradients(model(attention), lambda net: loss(net, tensors))
    assert float(got) == pytest.approx(float(want), rel=1e-3)
    assert relative(gradient, want_gradient) < 0.02


def test_a_compiled_model_gives_the_loss_and_the_gradient_of_a_plain_one() -> None:
    plain, compiled = model("varlen"), model("varlen")
    compiled.model.compile()
    for seed, rows in enumerate((((512,), (200, 312)), ((100, 412), (7, 8, 497)))):
        tensors = on(GPU, batch(seed, rows))
        want, want_gradient = loss_and_gradients(plain, lambda net, on=tensors: loss(net, on))
        got, gradient = loss_and_gradients(compiled, lambda net, on=tensors: loss(net, on))
        assert float(got) == pytest.approx(float(want), rel=1e-3)
        assert relative(gradient, want_gradient) < 0.02


def test_lengths_of_documents_are_found_on_the_gpu() -> None:
    positions = on(GPU, batch(0))["position_ids"]
    assert document_lengths(positions).tolist() == [300, 1, 180, 31, 512, 2, 400, 110]
