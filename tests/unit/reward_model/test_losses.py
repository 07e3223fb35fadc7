import math

import pytest
import torch

from components.reward_model.losses import bradley_terry, cross_entropy, distribution_loss

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5, 0.0]], dtype=torch.float64)
TARGET = torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]], dtype=torch.float64)


def test_cross_entropy_is_torchs_with_soft_labels():
    want = torch.nn.functional.cross_entropy(LOGITS, TARGET, reduction="none")
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET), want)


@pytest.mark.parametrize("name", ["ce", "w", "ot"])
def test_every_loss_is_least_where_the_prediction_is_the_target(name):
    loss = distribution_loss(name, 0.1)
    at_target = loss(TARGET.log(), TARGET)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        elsewhere = TARGET.log() + torch.randn(1, 6, generator=generator, dtype=torch.float64)
        assert loss(elsewhere, TARGET) > at_target


@pytest.mark.parametrize("name", ["ce", "w", "ot"])
def test_gradient_descent_on_a_loss_reaches_the_target(name):
    loss = distribution_loss(name, 0.5)
    logits = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for step in range(1500):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 1500)
        optimiser.zero_grad()
        loss(logits, TARGET).sum().backward()
        optimiser.step()
    torch.testing.assert_close(torch.softmax(logits, -1), TARGET, atol=2e-3, rtol=0)


def test_cross_entropy_does_not_see_how_far_a_wrong_category_lies_but_transport_does():
    predicted = torch.tensor([[0.9, 0.1 - 4e-9, 1e-9, 1e-9, 1e-9, 1e-9]], dtype=torch.float64).log()
    near = torch.tensor([[0.9, 0, 0.1, 0, 0, 0]], dtype=torch.float64)
    far = torch.tensor([[0.9, 0, 0, 0, 0, 0.1]], dtype=torch.float64)
    assert cross_entropy(predicted, near).item() == pytest.approx(
        cross_entropy(predicted, far).item()
    )
    for name, want_near, want_far in (("w", 0.1, 0.4), ("ot", 0.15, 0.35)):
        loss = distribution_loss(name, 0.0)
        assert loss(predicted, near).item() == pytest.approx(want_near, abs=1e-6)
        assert loss(predicted, far).item() == pytest.approx(want_far, abs=1e-6)


def test_bradley_terry_is_the_negative_log_probability_of_the_order():
    scores = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    loss = bradley_terry(scores, torch.tensor([0, 2]), torch.tensor([1, 0]))
    want = [-math.log(1 / (1 + math.exp(-1))), -math.log(1 / (1 + math.exp(2)))]
    assert loss.tolist() == pytest.approx(want)
