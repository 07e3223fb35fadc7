import math

import pytest
import torch

from components.reward_model.losses import bradley_terry, cross_entropy, distribution_loss

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5, 0.0]], dtype=torch.float64)
TARGET = torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]], dtype=torch.float64)


def test_cross_entropy_is_torchs_with_soft_labels():
    want = torch.nn.functional.cross_entropy(LOGITS, TARGET, reduction="none")
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET), want)


LOSSES = [("ce", 1), ("w", 1), ("ot", 1), ("w", 2), ("ot", 2)]


@pytest.mark.parametrize(("name", "power"), LOSSES)
def test_every_loss_is_least_where_the_prediction_is_the_target(name, power):
    loss = distribution_loss(name, 0.1, power)
    at_target = loss(TARGET.log(), TARGET)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        elsewhere = TARGET.log() + torch.randn(1, 6, generator=generator, dtype=torch.float64)
        assert loss(elsewhere, TARGET) > at_target


@pytest.mark.parametrize(("name", "power"), LOSSES)
def test_gradient_descent_on_a_loss_reaches_the_target(name, power):
    loss = distribution_loss(name, 0.5, power)
    logits = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for step in range(500):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 500)
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
    # A tenth moved over four gaps of 1, or over gaps of 1.5, 0, 0.5 and 1.5, whose squares add up to
    # a hundredth of them.
    for name, power, want_near, want_far in (
        ("w", 1, 0.1, 0.4),
        ("ot", 1, 0.15, 0.35),
        ("w", 2, 0.01, 0.04),
        ("ot", 2, 0.015, 0.035),
    ):
        loss = distribution_loss(name, 0.0, power)
        assert loss(predicted, near).item() == pytest.approx(want_near, abs=1e-6)
        assert loss(predicted, far).item() == pytest.approx(want_far, abs=1e-6)


VOTES = torch.tensor(
    [
        [0.7, 0.2, 0.1, 0.0, 0.0, 0.0],
        [0.6, 0.3, 0.0, 0.0, 0.1, 0.0],
        [0.1, 0.1, 0.2, 0.3, 0.1, 0.2],
    ],
    dtype=torch.float64,
)
"""What three crowds say of answers that look alike."""


def mean_loss(name, power, predicted):
    logits = predicted.clamp(min=1e-12).log().expand_as(VOTES)
    return distribution_loss(name, 0.1, power)(logits, VOTES).mean()


@pytest.mark.parametrize(("name", "power"), [("ce", 1), ("w", 2), ("ot", 2)])
def test_the_best_prediction_of_several_targets_is_their_mean(name, power):
    mean = VOTES.mean(dim=0)
    logits = mean.log().requires_grad_()
    distribution_loss(name, 0.1, power)(logits.expand_as(VOTES), VOTES).sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    generator = torch.Generator().manual_seed(0)
    others = torch.softmax(torch.randn(200, 6, generator=generator, dtype=torch.float64), dim=-1)
    least = mean_loss(name, power, mean)
    assert all(mean_loss(name, power, (mean + other) / 2) > least for other in others)


@pytest.mark.parametrize("name", ["w", "ot"])
def test_with_power_1_it_is_their_median_which_leaves_out_the_crowd_that_differs(name):
    # Positions fall along the index, so the median of the cumulative sums is by index for both.
    cumulative = VOTES.cumsum(dim=-1).median(dim=0).values
    median = cumulative.diff(prepend=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(median[3:5].sum().item(), 0.1)  # the mean has 0.17
    least = mean_loss(name, 1, median)
    generator = torch.Generator().manual_seed(0)
    others = torch.softmax(torch.randn(200, 6, generator=generator, dtype=torch.float64), dim=-1)
    assert all(mean_loss(name, 1, (median + other) / 2) > least for other in others)
    assert mean_loss(name, 1, VOTES.mean(dim=0)) > 1.2 * least
    assert mean_loss(name, 2, VOTES.mean(dim=0)) < mean_loss(name, 2, median)


def test_bradley_terry_is_the_negative_log_probability_of_the_order():
    scores = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    loss = bradley_terry(scores, torch.tensor([0, 2]), torch.tensor([1, 0]))
    want = [-math.log(1 / (1 + math.exp(-1))), -math.log(1 / (1 + math.exp(2)))]
    assert loss.tolist() == pytest.approx(want)
