"""Make the SFT model prefer what the crowd, and the reward model in its name, prefers."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoTokenizer

from components.contract import Report, Sink, StageIO
from components.dpo.encoded import encode_pairs, with_reference
from components.dpo.held_out import (
    DECODINGS,
    Judged,
    divergence_figures,
    held_out_answers,
    judge,
    preference_figures,
    prompts_of,
    read_splits,
    reward_figures,
)
from components.dpo.measure import Resampling
from components.dpo.objective import EncodedPairs, all_batches, pair_batches, pair_objective
from components.dpo.pairs import PAIRS, RATED, SAMPLED, rated_pairs
from components.dpo.params import DpoParams
from components.dpo.pictures import plot_margins, plot_rewards, write_samples
from components.dpo.reference import weights_digest
from components.dpo.sampled import SamplingCounts, draw_pairs, kept_pairs
from components.errors import DataError
from components.model.llama import load_model, save_model
from components.preference.ratings import Ratings
from components.shards import write_shards
from components.train.guard import GuardSettings
from components.train.loop import TrainResult, mean_loss, train
from components.train.schedule import schedule
from components.train.update import AdamWSettings

ROWS_PER_SHARD = 1 << 16
LENGTH_BIAS = 0.2
"""Answers that grew or shrank by this share of their length call for a warning."""
NUM_SHOWN_SAMPLES = 20


class Split(NamedTuple):
    table: pa.Table
    pairs: EncodedPairs
    num_too_long: int
    was_stored: bool


def run(params: DpoParams, io: StageIO, sink: Sink) -> Report:
    began_at = time.perf_counter()
    torch.set_num_threads(io.num_workers)
    sft, reward_model = io.inputs["sft"] / "model", io.inputs["reward_model"]
    tokenizer: Any = AutoTokenizer.from_pretrained(sft, local_files_only=True)
    policy = load_model(sft)
    ratings, held_out = read_splits(io.inputs["dedup"], reward_model, params.num_held_out_prompts)
    prompt_ids, prompts = prompts_of(held_out)
    generation = {
        "max_new_tokens": params.max_new_tokens,
        "seed": io.seed,
        "batch_size": params.generation_batch_size,
    }
    sink.info(f"answering {len(prompts):,} held-out prompts")
    before = held_out_answers(policy, tokenizer, prompts, **generation)

    sampled, sampling = kept_pairs(
        io.work / "sampled", lambda: sample_pairs(policy, tokenizer, ratings, params, io)
    )
    sink.info(f"{sampled.num_rows:,} pairs of {sampling.num_ranked:,} sampled answers")
    tables = {
        "train": pa.concat_tables([pairs_of(ratings, params, io), sampled]),
        "valid": pairs_of(held_out, params, io),
    }
    splits = {
        name: prepare(table, name, policy, tokenizer, params, io) for name, table in tables.items()
    }
    if splits["train"].was_stored:
        sink.info("the reference's log-probabilities were stored; they are not computed again")
    result = fit(policy, {name: split.pairs for name, split in splits.items()}, params, io, sink)
    save_model(policy, sft, io.out / "model")

    how = Resampling(params.num_resamples, io.seed)
    after = held_out_answers(policy, tokenizer, prompts, **generation)
    old, new = judge([before, after], prompts, reward_model)
    valid = splits["valid"]
    pair_prompts = valid.table["prompt_id"].to_pylist()
    figures: dict[str, Any] = dict(reward_figures(old, new, prompt_ids, how))
    figures["pairs"] = preference_figures(policy, valid.pairs, pair_prompts, params.beta, how)
    # 0 but for rounding: the stored reference is where the policy began.
    figures["pairs"]["reward_margin_before"] = result.evaluations[0][1]["valid/reward_margin"]
    figures["sampled"]["after"] |= divergence_figures(
        policy, sft, after["sampled"], prompt_ids, how
    )
    counts = describe(splits["train"])
    io.reports.mkdir(parents=True, exist_ok=True)
    plot_margins(result, io.reports / "margins.png")
    plot_rewards(old["sampled"], new["sampled"], io.reports / "rewards.png")
    notes = warnings(old, new, counts)
    for note in notes:
        sink.info(note)
    shown = old["greedy"], new["greedy"]
    write_samples(prompts, *shown, notes, NUM_SHOWN_SAMPLES, io.reports / "samples.md")
    return {
        "pairs": counts,
        "sampling": asdict(sampling),
        "num_held_out_pairs": len(valid.pairs),
        "num_held_out_prompts": len(prompts),
        "num_epochs": params.num_steps * params.pairs_per_batch / len(splits["train"].pairs),
        "held_out": figures,
        "train": training_figures(result),
        "reference_was_stored": splits["train"].was_stored,
        "elapsed_s": time.perf_counter() - began_at,
    }


def pairs_of(ratings: Ratings, params: DpoParams, io: StageIO) -> pa.Table:
    rated = params.rated
    return rated_pairs(
        ratings, rated.min_margin, rated.num_prompts, rated.pairs_per_prompt, io.seed
    )


def sample_pairs(
    policy: Any, tokenizer: Any, ratings: Ratings, params: DpoParams, io: StageIO
) -> tuple[pa.Table, SamplingCounts]:
    """On-policy pairs for the last prompts of the training split; the first have rated pairs."""
    sampled = params.sampled
    prompt_ids, prompts = prompts_of(ratings)
    begin = max(0, len(prompts) - sampled.num_prompts)
    return draw_pairs(
        policy,
        tokenizer,
        io.inputs["reward_model"] / "model",
        prompt_ids[begin:],
        prompts[begin:],
        samples_per_prompt=sampled.samples_per_prompt,
        min_margin=sampled.min_margin,
        max_new_tokens=params.max_new_tokens,
        temperature=sampled.temperature,
        top_p=sampled.top_p,
        seed=io.seed,
        batch_size=params.generation_batch_size,
    )


def prepare(
    table: pa.Table, split: str, policy: Any, tokenizer: Any, params: DpoParams, io: StageIO
) -> Split:
    """Publish the pairs that fit into a row, and give them reference log-probabilities.

    `policy` still is the reference here.
    """
    fitting, rows = encode_pairs(tokenizer, table, params.row_length)
    if not fitting.num_rows:
        raise DataError(
            f"dpo: no {split} pair; {table.num_rows} have the margin and none of them fits into "
            f"{params.row_length} tokens",
            "lower dpo.rated.min_margin, raise dpo.row_length, or let ingest rate more prompts",
        )
    write_shards(io.out / "pairs" / split, [fitting], PAIRS, ROWS_PER_SHARD)
    digest = weights_digest(io.inputs["sft"] / "model")
    pairs, was_stored = with_reference(rows, policy, digest, io.cache)
    return Split(fitting, pairs, table.num_rows - fitting.num_rows, was_stored)


def fit(
    policy: Any, pairs: Mapping[str, EncodedPairs], params: DpoParams, io: StageIO, sink: Sink
) -> TrainResult:
    """Train the policy in place; of the reference there are only stored numbers."""
    objective = pair_objective(params.loss, params.beta, params.label_smoothing)
    held_out = all_batches(pairs["valid"], params.row_length, params.pairs_per_micro_batch)

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        figures = mean_loss(model, held_out, objective)
        return {f"valid/{name}": value for name, value in figures.items()}

    return train(
        policy,
        pair_batches(
            pairs["train"],
            row_length=params.row_length,
            pairs_per_batch=params.pairs_per_batch,
            pairs_per_micro_batch=params.pairs_per_micro_batch,
            seed=io.seed,
        ),
        objective,
        num_steps=params.num_steps,
        optimiser=AdamWSettings(**params.optimiser.model_dump()),
        schedule=schedule(num_steps=params.num_steps, **params.schedule.model_dump()),
        max_grad_norm=params.max_grad_norm,
        seed=io.seed,
        checkpoints=io.work / "checkpoints",
        checkpoint_every_steps=params.checkpoints.every_steps,
        keep_checkpoints=params.checkpoints.keep,
        guard=GuardSettings(**params.guard.model_dump()),
        sink=sink,
        evaluate=evaluate,
        evaluate_every_steps=params.evaluate_every_steps,
    )


def training_figures(result: TrainResult) -> dict[str, float]:
    last = [
        loss for loss in result.losses[-max(1, len(result.losses) // 20) :] if math.isfinite(loss)
    ]
    return {
        "first_loss_nats": result.losses[0],
        "last_loss_nats": math.fsum(last) / max(1, len(last)),
        "num_skipped_steps": len(result.skipped_steps),
        "resumed_from_step": result.resumed_from_step,
        "tokens_per_s": result.tokens_per_s,
        "trained_s": result.elapsed_s,
    }


def describe(split: Split) -> dict[str, float]:
    """Counts of pairs by origin, and how long their two sides are."""
    origins = split.table["origin"].to_pylist()
    chosen = np.array([row.num_response_tokens for row in split.pairs.chosen])
    rejected = np.array([row.num_response_tokens for row in split.pairs.rejected])
    return {
        "num_rated": origins.count(RATED),
        "num_sampled": origins.count(SAMPLED),
        "num_too_long": split.num_too_long,
        "mean_chosen_tokens": float(chosen.mean()),
        "mean_rejected_tokens": float(rejected.mean()),
        "chosen_longer_fraction": float((chosen > rejected).mean()),
    }


def warnings(before: Judged, after: Judged, counts: Mapping[str, float]) -> list[str]:
    """What a reader of the samples should know about the answers' length, however decoded."""
    lengths = {
        decoding: (before[decoding].num_tokens.mean(), after[decoding].num_tokens.mean())
        for decoding in DECODINGS
    }
    means = ", ".join(
        f"{decoding} answers {new:.1f} tokens on average ({old:.1f} before)"
        for decoding, (old, new) in lengths.items()
    )
    notes = [
        f"Lengths: {means}. The chosen response is the longer one in "
        f"{counts['chosen_longer_fraction']:.0%} of the training pairs."
    ]
    for decoding, (old, new) in lengths.items():
        if abs(new / old - 1) > LENGTH_BIAS:
            notes.append(
                f"Warning, length bias: {decoding} answers {'grew' if new > old else 'shrank'} by "
                f"{abs(new / old - 1):.0%}. DPO sums log-probabilities, so length itself can pay; "
                "compare rewards at equal length before believing the gain."
            )
    return notes
