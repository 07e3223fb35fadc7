import math
from pathlib import Path
from typing import Any

import pytest
import torch

from components.dpo.encoded import with_reference
from components.dpo.objective import EncodedPairs, all_batches, pair_batches, pair_objective
from components.model.logprobs import response_logprobs
from components.model.rows import ResponseRow
from components.train.loop import mean_loss
from tests.small_models import small_model

CHOSEN = [ResponseRow([6, 20 + i, 30, 31 + i, 7], 2) for i in range(6)]
REJECTED = [ResponseRow([6, 20 + i, *range(40, 44 + i), 7], 2) for i in range(6)]


def pairs_of(reference: Any) -> EncodedPairs:
    return EncodedPairs(
        CHOSEN,
        REJECTED,
        response_logprobs(reference, CHOSEN),
        response_logprobs(reference, REJECTED),
    )


@pytest.mark.parametrize(
    ("loss", "want"), [("sigmoid", math.log(2)), ("cdpo", math.log(2)), ("ipo", 25.0)]
)
def test_a_policy_that_is_the_reference_has_the_known_loss_and_no_reward(
    loss: Any, want: float
) -> None:
    model = small_model()
    figures = mean_loss(model, all_batches(pairs_of(model), 32, 4), pair_objective(loss, 0.1, 0.1))
    assert figures["loss_nats"] == pytest.approx(want, rel=1e-3)
    assert figures["reward_margin"] == pytest.approx(0, abs=1e-4)


def test_where_training_is_in_bf16_the_reference_is_too_and_rewards_begin_at_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model().train()
    in_fp32 = pairs_of(model)
    for user in ("components.dpo.encoded", "components.train.loop"):
        monkeypatch.setattr(
            f"{user}.autocast", lambda device: torch.autocast(device.type, dtype=torch.bfloat16)
        )
    in_bf16, _ = with_reference((CHOSEN, REJECTED), model, "weights", tmp_path)

    def largest_reward(pairs: EncodedPairs) -> float:
        figures = mean_loss(model, all_batches(pairs, 32, 1), pair_objective("sigmoid", 1.0, 0.0))
        return max(abs(figures["chosen_reward"]), abs(figures["rejected_reward"]))

    assert largest_reward(in_fp32) > 0.01
    # Not 0: padded rows there, packed ones here, and a processor's bf16 kernels differ by shape.
    assert largest_reward(in_bf16) < 0.5 * largest_reward(in_fp32)


def test_the_figures_are_those_of_each_pair_alone() -> None:
    reference, policy = small_model(), small_model(seed=1)
    pairs = pairs_of(reference)
    beta = 0.1
    chosen = beta * (response_logprobs(policy, CHOSEN) - pairs.reference_chosen)
    rejected = beta * (response_logprobs(policy, REJECTED) - pairs.reference_rejected)
    figures = mean_loss(policy, all_batches(pairs, 32, 4), pair_objective("sigmoid", beta, 0.0))
    margin = chosen - rejected
    want = {
        "loss_nats": -torch.nn.functional.logsigmoid(margin).mean().item(),
        "chosen_reward": chosen.mean().item(),
        "rejected_reward": rejected.mean().item(),
        "reward_margin": margin.mean().item(),
        "reward_accuracy": (margin > 0).float().mean().item(),
    }
    assert figures == pytest.approx(want, abs=1e-4)


def test_a_step_down_the_gradient_prefers_the_chosen_responses() -> None:
    model = small_model()
    pairs = pairs_of(model)
    objective = pair_objective("sigmoid", 0.1, 0.0)
    (batch,) = all_batches(pairs, 64, 6)
    before = objective(model, batch)
    before.total.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight.sub_(1e-3 * weight.grad)
    after = objective(model, batch)
    assert after.total.item() < before.total.item()
    assert float(after.figures["reward_margin"]) > 0


def test_micro_batches_hold_every_pair_once_an_epoch() -> None:
    pairs = pairs_of(small_model())
    at = pair_batches(pairs, row_length=32, pairs_per_batch=3, pairs_per_micro_batch=1, seed=0)
    seen = [
        round(float(batch["reference_chosen"][0]), 3) for step in range(2) for batch in at(step)
    ]
    assert sorted(seen) == sorted(round(float(value), 3) for value in pairs.reference_chosen)
