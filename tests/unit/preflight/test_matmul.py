"""The known answer is the answer, exactly, in every type; and a single wrong bit shows."""

import numpy as np
import pytest
import torch

from components.preflight.burn import bandwidth, burn
from components.preflight.matmul import LARGEST, MAX_INNER, digest, host_matmul, square_problem

CPU = torch.device("cpu")
DIGESTS = {
    64: "f8a39b6fda0128fad82dd36b5dfbdb2750b4a0d217d1a710e2416953e6f7bf4d",
    256: "0b432174b82fec2c5a339bd20c097068f91c4be16cf020d179e6a22029ed1e5a",
}


@pytest.mark.parametrize("size", DIGESTS)
def test_the_answer_is_that_of_integer_arithmetic_and_the_same_at_all_times(size: int) -> None:
    problem = square_problem(size)
    integer = problem.a.astype(np.int64) @ problem.b.astype(np.int64)
    assert np.array_equal(problem.answer, integer)
    assert np.abs(integer).max() <= 2 * LARGEST
    assert digest(integer) == DIGESTS[size]


def test_no_partial_sum_in_any_order_leaves_what_fp32_holds_exactly() -> None:
    problem = square_problem(256)
    largest = np.abs(problem.a).max().astype(int) * np.abs(problem.b).max().astype(int)
    assert largest * MAX_INNER <= 2**24
    every_term_positive = np.abs(problem.a).astype(np.int64) @ np.abs(problem.b).astype(np.int64)
    assert every_term_positive.max() < 2**24


def test_the_factors_are_dense_and_hard_on_the_multipliers() -> None:
    problem = square_problem(1024)
    assert np.count_nonzero(problem.a) / problem.a.size > 0.95
    assert len(np.unique(problem.a)) == 2 * LARGEST + 3
    assert len(np.unique(problem.a, axis=0)) == 1024
    halves = problem.a[:64, :512].astype(int) @ problem.b[:512, :64].astype(int)
    assert np.abs(halves).max() > 2**10  # on the way the sums are far larger than the answer


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_type_gives_the_same_digest(dtype: torch.dtype) -> None:
    problem = square_problem(256)
    product = torch.from_numpy(problem.a).to(dtype) @ torch.from_numpy(problem.b).to(dtype)
    assert digest(product.double().numpy()) == DIGESTS[256]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_cpu_computes_exactly(dtype: str) -> None:
    figure = host_matmul(dtype, seconds=0.0, size=256)
    assert (figure.device, figure.dtype, figure.rounds, figure.wrong) == (None, dtype, 1, 0)
    assert figure.digest == figure.expected_digest == DIGESTS[256]
    assert figure.tflops > 0


def test_one_flipped_bit_of_a_factor_or_a_product_is_seen() -> None:
    problem = square_problem(256)
    a = problem.a.astype(np.float32)
    a[17, 40] += 1
    product = a @ problem.b.astype(np.float32)
    assert np.count_nonzero(product != problem.answer) == np.count_nonzero(problem.b[40])
    flipped = problem.answer.copy()
    flipped[3, 5] ^= 1
    assert digest(flipped) != digest(problem.answer)


def test_the_burn_counts_rounds_and_no_wrong_element_on_two_devices() -> None:
    first, second = burn([CPU, CPU], 256, 0.05)
    assert (first.device, second.device) == (0, 1)
    for figure in (first, second):
        assert figure.wrong == 0
        assert figure.rounds >= 1
        assert figure.digest == figure.expected_digest == DIGESTS[256]


def test_the_burn_counts_what_a_sick_multiplier_gets_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = torch.mm

    def sick(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        right(a, b, out=out)
        out[7, 9] += 1
        return out

    monkeypatch.setattr(torch, "mm", sick)
    (figure,) = burn([CPU], 256, 0.0)
    assert (figure.rounds, figure.wrong) == (1, 2)  # once in the round, once in the copy
    assert figure.digest != figure.expected_digest


def test_bandwidth_of_a_device_is_bytes_both_ways_over_time() -> None:
    figure = bandwidth(CPU, 3, 2**20)
    assert figure.device == 3
    assert 0.01 < figure.gb_per_s < 1e4
