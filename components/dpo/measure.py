"""Held-out figures before and after, each with its standard error (bootstrap over prompts)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.bootstrap import group_sums, mean_with_error, standard_error
from components.dpo.answers import Answer
from components.preference.crowd import Array

Figures = dict[str, float]


@dataclass(frozen=True)
class Resampling:
    num_resamples: int
    seed: int


@dataclass(frozen=True)
class JudgedAnswers:
    """One policy's answers to the held-out prompts, in the prompts' order."""

    answers: Sequence[Answer]
    rewards: Array
    """DPRM's expected reward."""
    baseline_rewards: Array
    """The Bradley-Terry score: a judge that nothing was trained against."""

    @property
    def num_tokens(self) -> Array:
        return np.array([float(answer.row.num_response_tokens) for answer in self.answers])


def with_error(name: str, values: Array, groups: Sequence[str], how: Resampling) -> Figures:
    mean, error = mean_with_error(values, groups, how.num_resamples, how.seed)
    return {name: mean, f"{name}_se": error}


def answer_figures(judged: JudgedAnswers, prompt_ids: Sequence[str], how: Resampling) -> Figures:
    finished = np.array([float(answer.is_finished) for answer in judged.answers])
    return {
        **with_error("reward", judged.rewards, prompt_ids, how),
        **with_error("baseline_reward", judged.baseline_rewards, prompt_ids, how),
        **with_error("num_tokens", judged.num_tokens, prompt_ids, how),
        **with_error("finished_fraction", finished, prompt_ids, how),
    }


def answer_gains(
    before: JudgedAnswers, after: JudgedAnswers, prompt_ids: Sequence[str], how: Resampling
) -> Figures:
    """After less before, prompt by prompt; and how often the answer after is the better one.

    `preferred_fraction` counts an equal reward half.
    """
    difference = after.rewards - before.rewards
    baseline = after.baseline_rewards - before.baseline_rewards
    return {
        **with_error("reward", difference, prompt_ids, how),
        **with_error("baseline_reward", baseline, prompt_ids, how),
        **with_error("num_tokens", after.num_tokens - before.num_tokens, prompt_ids, how),
        **with_error("preferred_fraction", (1 + np.sign(difference)) / 2, prompt_ids, how),
    }


def pair_figures(
    chosen_before: Array,
    rejected_before: Array,
    chosen_after: Array,
    rejected_after: Array,
    beta: float,
    prompt_ids: Sequence[str],
    how: Resampling,
) -> Figures:
    """Held-out pairs by summed log-probabilities [P] of the reference and of the policy, in nats.

    `likelihood_accuracy`: the chosen response is the likelier; `reward_accuracy`: its implicit
    reward is the higher (a tie counts 0, so before training it is 0); `reward_margin`: by how much.
    """
    chosen, rejected = chosen_after - chosen_before, rejected_after - rejected_before
    each = {
        "likelihood_accuracy_before": (chosen_before > rejected_before).astype(np.float64),
        "likelihood_accuracy": (chosen_after > rejected_after).astype(np.float64),
        "reward_accuracy": (chosen > rejected).astype(np.float64),
        "reward_margin": beta * (chosen - rejected),
        "chosen_logprob_shift_nats": chosen,
        "rejected_logprob_shift_nats": rejected,
    }
    figures: Figures = {}
    for name, values in each.items():
        figures |= with_error(name, values, prompt_ids, how)
    return figures


def kl_per_token(
    policy: Array, reference: Array, num_tokens: Array, groups: Sequence[str], how: Resampling
) -> Figures:
    """KL(policy || reference) in nats a token, from the policy's own samples.

    The mean log-ratio of whole samples [N], divided by their mean length: unbiased but noisy.
    """
    sums = group_sums(np.stack([policy - reference, num_tokens], axis=1), groups)
    total = sums.sum(axis=0)
    error = standard_error(sums, lambda t: t[:, 0] / t[:, 1], how.num_resamples, how.seed)
    return {"kl_nats_per_token": float(total[0] / total[1]), "kl_nats_per_token_se": error}
