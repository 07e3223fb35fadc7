"""The losses against the golden table of the reference implementation, in float64."""

import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.dpo.losses import (
    PairLogprobs,
    implicit_rewards,
    log_ratio_margin,
    preference_loss,
)

CASES = {  # inputs (policy chosen, policy rejected, reference chosen, reference rejected), beta
    "A": ((-10, -12, -10, -12), 0.1),
    "B": ((-10, -12, -11, -11.5), 0.1),
    "C": ((-10, -12, -11, -11.5), 0.5),
    "D": ((-20, -15, -18, -16), 0.1),
    "E": ((-1, -5, -2, -2), 1),
    "F": ((-56.25, -71.5, -60, -66), 0.1),
}
GOLDEN = [  # case, loss, label smoothing, value, gradient by the chosen log-probability
    ("A", "sigmoid", 0, 0.693147180560, -0.05),
    ("A", "cdpo", 0.1, 0.693147180560, -0.04),
    ("A", "cdpo", 0.3, 0.693147180560, -0.02),
    ("A", "ipo", 0, 25, -10),
    ("B", "sigmoid", 0, 0.620957047790, -0.046257015466),
    ("B", "cdpo", 0.1, 0.635957047790, -0.036257015466),
    ("B", "cdpo", 0.3, 0.665957047790, -0.016257015466),
    ("B", "ipo", 0, 12.25, -7),
    ("C", "sigmoid", 0, 0.386871006115, -0.160410650412),
    ("C", "cdpo", 0.1, 0.461871006115, None),
    ("C", "cdpo", 0.3, 0.611871006115, None),
    ("C", "ipo", 0, 0.25, 1),
    ("D", "sigmoid", 0, 0.854355244469, -0.057444251681),
    ("D", "cdpo", 0.1, 0.824355244469, None),
    ("D", "cdpo", 0.3, 0.764355244469, None),
    ("D", "ipo", 0, 64, -16),
    ("E", "sigmoid", 0, 0.018149927918, -0.017986209962),
    ("E", "cdpo", 0.1, 0.418149927918, 0.082013790038),
    ("E", "cdpo", 0.3, 1.218149927918, None),
    ("E", "ipo", 0, 12.25, 7),
    ("F", "sigmoid", 0, 0.333991604593, -0.028394020618),
    ("F", "cdpo", 0.1, 0.426491604593, None),
    ("F", "cdpo", 0.3, 0.611491604593, 0.001605979382),
    ("F", "ipo", 0, 18.0625, 8.5),
]
REWARDS = [
    ("A", 0, 0),
    ("B", 0.1, -0.05),
    ("C", 0.5, -0.25),
    ("D", -0.2, 0.1),
    ("E", 1, -3),
    ("F", 0.375, -0.55),
]


def pair(case):
    values, beta = CASES[case]
    tensors = [torch.tensor([float(value)], dtype=torch.float64) for value in values]
    for tensor in tensors[:2]:
        tensor.requires_grad_()
    return PairLogprobs(*tensors), beta


@pytest.mark.parametrize(("case", "name", "smoothing", "want", "want_gradient"), GOLDEN)
def test_loss_and_gradient_have_the_golden_values(case, name, smoothing, want, want_gradient):
    logprobs, beta = pair(case)
    loss = preference_loss(name, log_ratio_margin(logprobs), beta, smoothing)
    loss.sum().backward()
    assert loss.item() == pytest.approx(want, abs=1e-12)
    gradient = logprobs.policy_chosen.grad.item()
    assert logprobs.policy_rejected.grad.item() == -gradient
    if want_gradient is not None:
        assert gradient == pytest.approx(want_gradient, abs=1e-12)


@pytest.mark.parametrize(("case", "chosen", "rejected"), REWARDS)
def test_implicit_rewards_have_the_golden_values(case, chosen, rejected):
    logprobs, beta = pair(case)
    rewards = implicit_rewards(logprobs, beta)
    assert [value.item() for value in rewards] == pytest.approx([chosen, rejected])
    assert not rewards[0].requires_grad


@given(h=st.floats(-50, 50), beta=st.floats(0.01, 2), smoothing=st.floats(0, 0.49))
def test_conservative_dpo_is_dpo_plus_its_smoothing_times_the_margin(h, beta, smoothing):
    margin = torch.tensor([h], dtype=torch.float64)
    plain = preference_loss("sigmoid", margin, beta, 0.0)
    smoothed = preference_loss("cdpo", margin, beta, smoothing)
    assert smoothed.item() == pytest.approx(plain.item() + smoothing * beta * h, abs=1e-9)


def trl_losses(loss_type, logprobs, beta, lengths):
    """TRL's own `_compute_loss`, fed log-probabilities in place of a model's.

    TRL 1.16 has no cDPO: `label_smoothing` is ignored by its sigmoid loss. Its `ipo` divides the
    log-ratios by the number of completion tokens, unlike the paper's reference implementation.
    """
    from trl import DPOTrainer

    chosen_length, rejected_length = lengths
    width = max(lengths) + 1
    mask = torch.zeros(2, width, dtype=torch.int64)
    mask[0, 1 : chosen_length + 1] = 1
    mask[1, 1 : rejected_length + 1] = 1
    tokens = torch.zeros(2, width - 1, dtype=torch.float64)
    tokens[0, 0] = logprobs.policy_chosen.item()
    tokens[1, 0] = logprobs.policy_rejected.item()
    nothing = torch.zeros(2, width - 1)
    outputs = SimpleNamespace(
        log_probs=tokens, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
    )

    class Model:
        training = False

        def __call__(self, **_):
            return outputs

    trainer = object.__new__(DPOTrainer)
    trainer.__dict__.update(
        model=Model(),
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x
        ),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    inputs = {
        "input_ids": torch.zeros(2, width, dtype=torch.int64),
        "attention_mask": torch.ones(2, width, dtype=torch.int64),
        "completion_mask": mask,
        "ref_chosen_logps": logprobs.reference_chosen,
        "ref_rejected_logps": logprobs.reference_rejected,
    }
    return trainer._compute_loss(trainer.model, inputs, return_outputs=False).item()


@pytest.mark.parametrize("case", CASES)
def test_the_sigmoid_loss_is_trls(case):
    logprobs, beta = pair(case)
    ours = preference_loss("sigmoid", log_ratio_margin(logprobs), beta, 0.0).item()
    assert trl_losses("sigmoid", logprobs, beta, (4, 5)) == pytest.approx(ours, abs=1e-12)


def test_trls_ipo_averages_over_tokens_and_ours_sums_as_the_paper():
    logprobs, beta = pair("B")
    assert trl_losses("ipo", logprobs, beta, (4, 5)) == pytest.approx(21.6225, abs=1e-9)
    assert preference_loss("ipo", log_ratio_margin(logprobs), beta, 0.0).item() == 12.25


REFERENCE = np.array([0.5, 0.3, 0.2])
TRUE_REWARDS = np.array([0.0, 1.0, 2.0])


def optimum(beta):
    """Eq. 4: pi_ref exp(r / beta) / Z."""
    weights = REFERENCE * np.exp(TRUE_REWARDS / beta)
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("beta", "want", "reward", "kl", "objective"),
    [
        (0.5, [0.036667, 0.162559, 0.800774], 1.764107, 0.915475, 1.306369),
        (1, [0.179000, 0.291944, 0.529056], 1.350056, 0.322834, 1.027222),
        (2, [0.325040, 0.321540, 0.353420], 1.028380, 0.083530, 0.861320),
    ],
)
def test_a_tabular_policy_trained_on_exact_preferences_reaches_the_closed_form_optimum(
    beta, want, reward, kl, objective
):
    chosen, rejected = zip(*[(a, b) for a in range(3) for b in range(3) if a != b], strict=True)
    difference = torch.tensor(TRUE_REWARDS[list(chosen)] - TRUE_REWARDS[list(rejected)])
    probability = torch.sigmoid(difference)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    reference = torch.tensor(REFERENCE).log()
    optimiser = torch.optim.LBFGS(
        [logits],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        policy = torch.log_softmax(logits, dim=0)
        margin = log_ratio_margin(
            PairLogprobs(
                policy[list(chosen)],
                policy[list(rejected)],
                reference[list(chosen)],
                reference[list(rejected)],
            )
        )
        loss = (probability * preference_loss("sigmoid", margin, beta, 0.0)).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    policy = torch.softmax(logits, dim=0).detach().numpy()
    np.testing.assert_allclose(policy, want, atol=1e-5)
    np.testing.assert_allclose(policy, optimum(beta), atol=1e-5)
    assert policy @ TRUE_REWARDS == pytest.approx(reward, abs=1e-5)
    divergence = (policy * np.log(policy / REFERENCE)).sum()
    assert divergence == pytest.approx(kl, abs=1e-5)
    assert policy @ TRUE_REWARDS - beta * divergence == pytest.approx(objective, abs=1e-5)


def minimiser(loss):
    margin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [margin],
        max_iter=200,
        tolerance_grad=1e-13,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        value = loss(margin).sum()
        value.backward()
        return value

    optimiser.step(closure)
    return margin.item(), loss(margin).item()


@pytest.mark.parametrize(
    ("smoothing", "want", "least"),
    [(0.05, 2.944439, 0.198515), (0.1, 2.197225, 0.325083), (0.3, 0.847298, 0.610864)],
)
def test_conservative_dpo_rests_at_the_logit_of_the_labels_reliability(smoothing, want, least):
    beta = 0.25
    margin, loss = minimiser(lambda h: preference_loss("cdpo", h, beta, smoothing))
    assert beta * margin == pytest.approx(want, abs=1e-5)
    assert loss == pytest.approx(least, abs=1e-6)
    entropy = -smoothing * math.log(smoothing) - (1 - smoothing) * math.log(1 - smoothing)
    assert loss == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize(("tau", "want"), [(0.1, 0.993307), (0.5, 0.731059), (1, 0.622459)])
def test_ipo_with_two_answers_and_a_uniform_reference_rests_short_of_certainty(tau, want):
    margin, _ = minimiser(lambda h: preference_loss("ipo", h, tau, 0.0))
    assert 1 / (1 + math.exp(-margin)) == pytest.approx(want, abs=1e-6)
