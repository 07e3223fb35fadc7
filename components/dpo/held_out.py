"""The held-out prompts: what a policy answers to them, and what that is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.dpo.answers import Answer, answer
from components.dpo.measure import (
    Figures,
    JudgedAnswers,
    Resampling,
    answer_figures,
    answer_gains,
    kl_per_token,
    pair_figures,
)
from components.dpo.objective import EncodedPairs
from components.model.llama import load_model
from components.model.logprobs import response_logprobs
from components.model.reward import load_reward_model, score
from components.preference.ratings import Ratings, prompt_slices, read_ratings, read_update
from components.train.loop import autocast

DECODINGS = ("greedy", "sampled")
Answers = Mapping[str, list[Answer]]
"""By decoding; in the prompts' order."""
Judged = Mapping[str, JudgedAnswers]


def first_prompts(ratings: Ratings, num_prompts: int) -> Ratings:
    """The ratings of the first `num_prompts` prompts."""
    parts = prompt_slices(ratings.prompt_ids)[:num_prompts]
    return ratings.select(np.arange(parts[-1].stop if parts else 0))


def prompts_of(ratings: Ratings) -> tuple[list[str], list[str]]:
    """Id and text of each prompt, once."""
    first = [part.start for part in prompt_slices(ratings.prompt_ids)]
    return [ratings.prompt_ids[i] for i in first], [ratings.prompts[i] for i in first]


def held_out_answers(
    policy: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    seed: int,
    batch_size: int,
) -> Answers:
    """One greedy answer to each prompt, and one drawn from the policy as it is."""
    return {
        decoding: answer(
            policy,
            tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=0.0 if decoding == "greedy" else 1.0,
            top_p=1.0,
            seed=seed,
            batch_size=batch_size,
        )
        for decoding in DECODINGS
    }


def judge(answers: Sequence[Answers], prompts: Sequence[str], reward_model: Path) -> list[Judged]:
    """Each policy's answers with their rewards; `reward_model` is that stage's folder."""
    scores = []
    for name in ("model", "baseline"):
        model, tokenizer = load_reward_model(reward_model / name)
        texts = [one.text for each in answers for decoding in DECODINGS for one in each[decoding]]
        repeated = [*prompts] * (len(answers) * len(DECODINGS))
        rewards = score(model, tokenizer, repeated, texts)
        scores.append(rewards.reshape(len(answers), len(DECODINGS), len(prompts)))
    return [
        {
            decoding: JudgedAnswers(each[decoding], scores[0][i, j], scores[1][i, j])
            for j, decoding in enumerate(DECODINGS)
        }
        for i, each in enumerate(answers)
    ]


def reward_figures(
    before: Judged, after: Judged, prompt_ids: Sequence[str], how: Resampling
) -> dict[str, dict[str, Figures]]:
    """By decoding: the figures before and after, and the gain prompt by prompt."""
    return {
        decoding: {
            "before": answer_figures(before[decoding], prompt_ids, how),
            "after": answer_figures(after[decoding], prompt_ids, how),
            "gain": answer_gains(before[decoding], after[decoding], prompt_ids, how),
        }
        for decoding in DECODINGS
    }


def preference_figures(
    policy: Any, pairs: EncodedPairs, pair_prompts: Sequence[str], beta: float, how: Resampling
) -> Figures:
    """How the policy ranks held-out pairs, one prompt id for each; in the reference's precision."""
    with autocast(policy.device):
        chosen, rejected = (
            response_logprobs(policy, rows).double().numpy()
            for rows in (pairs.chosen, pairs.rejected)
        )
    return pair_figures(
        pairs.reference_chosen.double().numpy(),
        pairs.reference_rejected.double().numpy(),
        chosen,
        rejected,
        beta,
        pair_prompts,
        how,
    )


def divergence_figures(
    policy: Any,
    reference: Path,
    drawn: Sequence[Answer],
    prompt_ids: Sequence[str],
    how: Resampling,
) -> Figures:
    """KL estimate from answers that the policy drew; `reference` is a saved model's folder."""
    rows = [one.row for one in drawn]
    own = response_logprobs(policy, rows).double().numpy()
    others = response_logprobs(load_model(reference), rows).double().numpy()
    lengths = np.array([float(row.num_response_tokens) for row in rows])
    return kl_per_token(own, others, lengths, prompt_ids, how)


def read_splits(dedup: Path, reward_model: Path, num_held_out: int) -> tuple[Ratings, Ratings]:
    """Training and held-out ratings, with the posterior that the reward model was trained on."""
    update = read_update(reward_model)
    folder = dedup / "rated_responses"
    held_out = first_prompts(read_ratings(folder / "valid", *update), num_held_out)
    return read_ratings(folder / "train", *update), held_out
