import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given
from hypothesis import strategies as st

from components.quantize.gptq import input_hessian, quantize_gptq
from components.quantize.int4 import dequantize, find_scales, quantize_nearest

ARGS = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=16)


def weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_min_max_scales_and_codes_are_those_of_compressed_tensors() -> None:
    weight = weights(24, 64)
    groups = weight.reshape(24, 4, 16)
    expected, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), ARGS)
    codes, scales = quantize_nearest(weight, 16, "minmax", torch.float32)
    torch.testing.assert_close(scales, expected)
    read_back = fake_quantize(weight, scales, torch.zeros_like(scales), ARGS)
    assert torch.equal(dequantize(codes, scales), read_back)


def test_a_group_worked_out_by_hand() -> None:
    codes, scales = quantize_nearest(
        torch.tensor([[7.5, -7.5, 1.4, 0.6, -0.4, 0.0, 3.5, 2.5]]), 8, "minmax", torch.float32
    )
    assert scales.tolist() == [[1.0]]
    # 7.5 would be 8, which four bits do not hold; halves round to even.
    assert codes.tolist() == [[7, -8, 1, 1, 0, 0, 4, 2]]


@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-4, 1.0, 300.0]))
def test_the_searched_scale_is_never_worse_than_min_max(seed: int, size: float) -> None:
    groups = weights(4, 32, seed).reshape(4, 1, 32) * size
    errors = []
    for search in ("minmax", "mse"):
        codes, scales = quantize_nearest(groups.flatten(1), 32, search, torch.float32)  # type: ignore[arg-type]
        errors.append((dequantize(codes, scales) - groups.flatten(1)).square().sum(dim=1))
    assert (errors[1] <= errors[0]).all()


def test_the_search_finds_the_least_error_of_a_fine_grid() -> None:
    group = weights(1, 32, seed=3)
    _, scales = quantize_nearest(group, 32, "mse", torch.float32)
    grid = group.abs().max() / 7.5 * torch.linspace(0.5, 1.2, 2000)
    codes = torch.clamp(torch.round(group / grid[:, None]), -8, 7)
    least = (codes * grid[:, None] - group).square().sum(dim=1).min()
    found = (dequantize(*quantize_nearest(group, 32, "mse", torch.float32)) - group).square().sum()
    assert scales.item() < group.abs().max() / 7.5
    assert found <= 1.02 * least


def test_scales_are_exact_in_the_type_they_are_stored_in() -> None:
    scales = find_scales(weights(8, 32).reshape(8, 1, 32), "mse", torch.bfloat16)
    assert torch.equal(scales, scales.bfloat16().float())


def test_a_group_of_zeros_stays_zero() -> None:
    codes, scales = quantize_nearest(torch.zeros(2, 16), 16, "mse", torch.float16)
    assert torch.equal(dequantize(codes, scales), torch.zeros(2, 16))


@pytest.fixture
def inputs() -> torch.Tensor:
    """Correlated inputs, as a layer sees them."""
    mixing = weights(64, 64, seed=7) * torch.linspace(0.1, 2, 64)
    return weights(500, 64, seed=8) @ mixing


def test_gptq_moves_the_layers_output_less_than_rounding_alone(inputs: torch.Tensor) -> None:
    weight = weights(48, 64)
    hessian = input_hessian(inputs)
    error = {}
    for name, (codes, scales) in {
        "nearest": quantize_nearest(weight, 16, "mse", torch.float32),
        "gptq": quantize_gptq(weight, hessian, 16, "mse", torch.float32),
    }.items():
        error[name] = (inputs @ (dequantize(codes, scales) - weight).T).square().sum().item()
    assert error["gptq"] < 0.8 * error["nearest"]


def test_gptq_is_rounding_alone_where_inputs_are_independent() -> None:
    weight = weights(16, 32)
    gptq = quantize_gptq(weight, torch.eye(32), 16, "mse", torch.float32)
    nearest = quantize_nearest(weight, 16, "mse", torch.float32)
    assert torch.equal(gptq[0], nearest[0])
    assert torch.equal(gptq[1], nearest[1])


def test_gptq_agrees_with_the_update_written_out_column_by_column(inputs: torch.Tensor) -> None:
    # Optimal Brain Quantization with a fixed order: after each column the exact inverse Hessian of
    # the columns still to come is computed anew.
    weight = weights(3, 64)
    codes, scales = quantize_gptq(weight, input_hessian(inputs), 64, "minmax", torch.float32)
    hessian = input_hessian(inputs)
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(64)
    working = weight.double().clone()
    for column in range(64):
        inverse = torch.linalg.inv(hessian[column:, column:])
        code = torch.clamp(torch.round(working[:, column].float() / scales[:, 0]), -8, 7)
        assert torch.equal(code.to(torch.int8), codes[:, column])
        error = (working[:, column] - (code * scales[:, 0]).double()) / inverse[0, 0]
        working[:, column:] -= error[:, None] * inverse[0]


def test_gptq_bears_an_input_that_is_never_used(inputs: torch.Tensor) -> None:
    inputs[:, 5] = 0
    codes, _ = quantize_gptq(weights(8, 64), input_hessian(inputs), 16, "mse", torch.float32)
    assert codes[:, 5].eq(0).all()
