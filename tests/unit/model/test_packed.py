"""A document in a packed row is computed as if it were alone."""

from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from components.model.attention import _one_document, document_lengths
from components.model.cross_entropy import linear_cross_entropy
from components.model.llama import ATTENTION
from components.model.packed import IGNORED, hidden_states, next_token_loss, packed_logits
from tests.small_models import small_model

SIZES = ((7, 1, 20, 4), (32,))


def positions() -> torch.Tensor:
    rows = [torch.cat([torch.arange(size) for size in sizes]) for sizes in SIZES]
    return torch.stack(rows)


def ids() -> torch.Tensor:
    return torch.randint(9, 300, (2, 32), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
def test_logits_of_a_document_in_a_row_equal_those_alone(attention: str) -> None:
    model = small_model().eval()
    alone = []
    with torch.no_grad():
        for row, sizes in zip(ids(), SIZES, strict=True):
            parts = [model(part.unsqueeze(0)).logits[0] for part in row.split(list(sizes))]
            alone.append(torch.cat(parts))
        model.config._attn_implementation = ATTENTION[attention]
        packed = packed_logits(model, ids(), positions())
    torch.testing.assert_close(packed, torch.stack(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
def test_a_changed_document_changes_no_other(attention: str) -> None:
    model = small_model().eval()
    model.config._attn_implementation = ATTENTION[attention]
    changed = ids()
    changed[0, 8:28] = (changed[0, 8:28] + 1) % 300
    with torch.no_grad():
        before = packed_logits(model, ids(), positions())
        after = packed_logits(model, changed, positions())
    assert torch.equal(before[0, :8], after[0, :8])
    assert torch.equal(before[0, 28:], after[0, 28:])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0, 8:28], after[0, 8:28])


@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
def test_loss_and_gradients_equal_plain_cross_entropy(attention: str) -> None:
    model = small_model().train()
    targets = ids().roll(-1, 1)
    targets[0, [6, 7, 27, 31]] = IGNORED
    logits = packed_logits(model, ids(), positions())
    want = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    want_gradients = torch.autograd.grad(want, list(model.parameters()))
    model.config._attn_implementation = ATTENTION[attention]
    got, weight = next_token_loss(model, ids(), positions(), targets)
    gradients = torch.autograd.grad(got, list(model.parameters()))
    assert weight == 60
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    for gradient, want_gradient in zip(gradients, want_gradients, strict=True):
        torch.testing.assert_close(gradient, want_gradient, rtol=1e-3, atol=1e-4)


def gpu_kernel(query, key, value, bounds, *_: object, scale: float, **__: object) -> torch.Tensor:
    """As torch's varlen_attn: one type for all, at most 16 bits; computed document by document."""
    assert query.dtype == key.dtype == value.dtype == torch.bfloat16
    lengths = bounds.diff().tolist()
    parts = zip(*(tensor.split(lengths) for tensor in (query, key, value)), strict=True)
    return torch.cat([_one_document(*part, scaling=scale) for part in parts])


def test_under_bf16_autocast_every_tensor_reaches_the_gpus_kernel_in_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", gpu_kernel)
    model = small_model(initializer_range=0.02).eval()
    embeddings = model.model.embed_tokens(ids())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model.config._attn_implementation = ATTENTION["sdpa"]
        want = hidden_states(model, ids(), positions())
        model.config._attn_implementation = ATTENTION["varlen"]
        got = model.model(
            inputs_embeds=embeddings,
            position_ids=positions(),
            use_cache=False,
            lengths=document_lengths(positions()),
        ).last_hidden_state
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.02)


def test_under_bf16_autocast_torch_itself_casts_for_sdpa() -> None:
    implementation: Any = ALL_ATTENTION_FUNCTIONS[ATTENTION["sdpa"]]
    query, key = torch.randn(1, 4, 8, 16), torch.randn(1, 4, 8, 16)
    value = torch.randn(1, 4, 8, 16).to(torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = implementation(torch.nn.Module().eval(), query, key, value, None, scaling=0.25)
    assert out.dtype == torch.bfloat16


def test_lengths_are_read_from_the_positions() -> None:
    assert document_lengths(positions()).tolist() == [7, 1, 20, 4, 32]


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_the_fused_loss_equals_torchs_across_chunks_and_for_sharp_logits(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        __import__("components.model.cross_entropy", fromlist=["x"]).CHUNK_LOGITS, "cpu", 7 * 50
    )
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator, dtype=torch.float32) * scale
    table = torch.randn(50, 16, generator=generator)
    targets = torch.randint(0, 50, (40,), generator=generator)
    hidden.requires_grad_()
    table.requires_grad_()
    want = functional.cross_entropy(hidden @ table.T, targets, reduction="sum")
    got = linear_cross_entropy(hidden, table, targets)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    for gradient, oracle in zip(
        torch.autograd.grad(3 * got, [hidden, table]),
        torch.autograd.grad(3 * want, [hidden, table]),
        strict=True,
    ):
        torch.testing.assert_close(gradient, oracle, rtol=1e-4, atol=1e-4)


def test_under_autocast_16_bit_logits_are_summed_and_normalised_in_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator, requires_grad=True)
    table = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (40,), generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = linear_cross_entropy(hidden, table, targets)
    logits = (hidden.bfloat16() @ table.bfloat16().T).float()
    want = functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    for gradient, oracle in zip(
        torch.autograd.grad(got, [hidden, table]),
        torch.autograd.grad(want, [hidden, table]),
        strict=True,
    ):
        torch.testing.assert_close(gradient, oracle, rtol=0.02, atol=0.02)
