import math

import pytest

from components.errors import UserError
from components.train.guard import Guard, GuardSettings

SETTINGS = GuardSettings(spike_z=6.0, window_steps=20, max_skipped_steps=2)


def calm_guard() -> Guard:
    guard = Guard(SETTINGS)
    for step in range(20):
        guard.accept(3.0 + 0.01 * (step % 5))
    return guard


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_left_out_from_the_first_step(loss: float) -> None:
    assert Guard(SETTINGS).reason_to_skip(loss, gradients_are_finite=True) == f"the loss is {loss}"


def test_a_gradient_that_is_no_number_is_left_out() -> None:
    reason = Guard(SETTINGS).reason_to_skip(3.0, gradients_are_finite=False)
    assert reason == "a gradient is not a finite number"


def test_a_jump_is_left_out_and_ordinary_noise_is_not() -> None:
    guard = calm_guard()
    # Median 3.02, median absolute deviation 0.01: one robust deviation is 0.0148.
    assert guard.reason_to_skip(3.02 + 5.9 * 0.014826, gradients_are_finite=True) == ""
    reason = guard.reason_to_skip(3.02 + 6.1 * 0.014826, gradients_are_finite=True)
    assert "6.1 robust standard deviations" in reason


def test_a_falling_loss_is_never_a_spike() -> None:
    assert calm_guard().reason_to_skip(0.1, gradients_are_finite=True) == ""


def test_nothing_is_a_spike_before_the_window_is_full() -> None:
    guard = Guard(SETTINGS)
    for _ in range(19):
        guard.accept(3.0)
    assert guard.reason_to_skip(100.0, gradients_are_finite=True) == ""
    guard.accept(3.0)
    assert guard.reason_to_skip(100.0, gradients_are_finite=True) != ""


def test_too_many_end_the_run_with_the_step_the_rate_and_what_to_try() -> None:
    guard = Guard(SETTINGS)
    guard.skip(4, "the loss is nan", 1e-3)
    guard.skip(5, "the loss is nan", 1e-3)
    with pytest.raises(UserError, match=r"step 6: the loss is nan, at learning rate 0.001") as info:
        guard.skip(6, "the loss is nan", 1e-3)
    assert "lower learning_rate" in info.value.hint


def test_its_memory_survives_a_checkpoint() -> None:
    guard = calm_guard()
    guard.skip(21, "a jump", 1e-3)
    other = Guard(SETTINGS)
    other.restore(guard.state())
    assert other.state() == guard.state()
    assert other.reason_to_skip(9.0, gradients_are_finite=True) == guard.reason_to_skip(
        9.0, gradients_are_finite=True
    )
