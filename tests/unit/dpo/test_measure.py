import numpy as np
import pytest

from components.dpo.answers import Answer
from components.dpo.measure import (
    JudgedAnswers,
    Resampling,
    answer_gains,
    kl_per_token,
    pair_figures,
)
from components.dpo.stage import warnings
from components.model.rows import ResponseRow

HOW = Resampling(200, 0)


def test_kl_is_the_mean_log_ratio_of_the_samples_over_their_mean_length() -> None:
    policy, reference = np.array([-2.0, -3.0]), np.array([-3.0, -6.0])
    figures = kl_per_token(policy, reference, np.array([3.0, 5.0]), ["a", "b"], HOW)
    assert figures["kl_nats_per_token"] == pytest.approx((1 + 3) / 8)
    assert figures["kl_nats_per_token_se"] > 0


def test_the_kl_estimate_of_a_known_pair_of_distributions_is_right() -> None:
    rng = np.random.default_rng(0)
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.4, 0.4, 0.2])
    drawn = rng.choice(3, size=4000, p=p)
    names = [str(i) for i in range(4000)]
    figures = kl_per_token(np.log(p)[drawn], np.log(q)[drawn], np.ones(4000), names, HOW)
    want = float((p * np.log(p / q)).sum())
    assert abs(figures["kl_nats_per_token"] - want) < 4 * figures["kl_nats_per_token_se"]


def test_pair_figures_tell_likelihood_from_implicit_reward() -> None:
    figures = pair_figures(
        chosen_before=np.array([-10.0, -5.0]),
        rejected_before=np.array([-5.0, -10.0]),
        chosen_after=np.array([-8.0, -6.0]),
        rejected_after=np.array([-7.0, -10.0]),
        beta=0.5,
        prompt_ids=["a", "b"],
        how=HOW,
    )
    want = {
        "likelihood_accuracy_before": 0.5,
        "likelihood_accuracy": 0.5,
        "reward_accuracy": 0.5,
        "reward_margin": 0.5 * ((2 + 2) + (-1 - 0)) / 2,
        "chosen_logprob_shift_nats": 0.5,
        "rejected_logprob_shift_nats": -1.0,
    }
    assert {name: figures[name] for name in want} == pytest.approx(want)


def test_gains_are_prompt_by_prompt_and_a_draw_counts_half() -> None:
    def judged(rewards: list[float], lengths: list[int]) -> JudgedAnswers:
        answers = [Answer(ResponseRow([6, *[9] * n], 1), "x") for n in lengths]
        return JudgedAnswers(answers, np.array(rewards), np.zeros(len(rewards)))

    gains = answer_gains(
        judged([0.0, 0.0, 0.0], [2, 2, 2]), judged([1.0, 0.0, -0.5], [4, 2, 3]), list("abc"), HOW
    )
    assert gains["reward"] == pytest.approx(0.5 / 3)
    assert gains["preferred_fraction"] == pytest.approx(0.5)
    assert gains["num_tokens"] == pytest.approx(1.0)


def judged(num_tokens: int) -> JudgedAnswers:
    answers = [Answer(ResponseRow([5] * (2 + num_tokens), 2), "")] * 4
    return JudgedAnswers(answers, np.zeros(4), np.zeros(4))


@pytest.mark.parametrize("decoding", ["greedy", "sampled"])
def test_answers_that_got_shorter_are_warned_of_however_they_were_decoded(decoding: str) -> None:
    before = {name: judged(30) for name in ("greedy", "sampled")}
    lines, warning = warnings(
        before, before | {decoding: judged(15)}, {"chosen_longer_fraction": 0.25}
    )
    assert f"{decoding} answers 15.0 tokens on average (30.0 before)" in lines
    assert "25% of the training pairs" in lines
    assert warning.startswith(f"Warning, length bias: {decoding} answers shrank by 50%.")
    assert len(warnings(before, before, {"chosen_longer_fraction": 0.25})) == 1
