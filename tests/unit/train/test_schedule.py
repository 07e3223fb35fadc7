import math

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from components.train.schedule import schedule

SHAPE = {"learning_rate": 2.0, "num_steps": 100, "warmup_steps": 9}


def test_the_warm_up_is_a_straight_line_to_the_highest_rate() -> None:
    for kind in ("cosine", "wsd", "constant"):
        rate = schedule(kind, **SHAPE, final_fraction=0.1, decay_fraction=0.2)
        assert [rate(step) for step in range(10)] == pytest.approx(
            [2.0 * (step + 1) / 10 for step in range(10)]
        )


def test_cosine_equals_torchs() -> None:
    rate = schedule(
        "cosine",
        learning_rate=2.0,
        num_steps=50,
        warmup_steps=0,
        final_fraction=0.1,
        decay_fraction=1.0,
    )
    optimiser = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    oracle = CosineAnnealingLR(optimiser, T_max=50, eta_min=0.2)
    for step in range(50):
        assert rate(step) == pytest.approx(oracle.get_last_lr()[0], rel=1e-6)
        optimiser.step()
        oracle.step()


def test_cosine_is_half_way_down_in_the_middle() -> None:
    rate = schedule(
        "cosine",
        learning_rate=1.0,
        num_steps=100,
        warmup_steps=0,
        final_fraction=0.0,
        decay_fraction=1.0,
    )
    assert rate(50) == pytest.approx(0.5)
    assert rate(25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_wsd_is_level_then_a_straight_line() -> None:
    rate = schedule("wsd", **SHAPE, final_fraction=0.1, decay_fraction=0.2)
    assert [rate(step) for step in (9, 50, 79, 80)] == [2.0] * 4
    assert rate(90) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rate(99) == pytest.approx(2.0 * (0.1 + 0.9 * 0.05))


def test_constant_stays() -> None:
    rate = schedule("constant", **SHAPE, final_fraction=0.0, decay_fraction=1.0)
    assert {rate(step) for step in range(9, 100)} == {2.0}
