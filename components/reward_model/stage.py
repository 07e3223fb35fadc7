"""Learn what the crowd would think of an answer, as a distribution and as the baseline's score."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from components.contract import Report, Sink, StageIO
from components.errors import DataError
from components.model.llama import load_model
from components.model.reward import (
    RewardModel,
    head_outputs,
    predict_distributions,
    save_reward_model,
)
from components.model.rows import ResponseRow, encode_responses
from components.preference.crowd import Array, expected_reward
from components.preference.pairs import preferred_pairs
from components.preference.ratings import Ratings, prompt_slices, read_ratings, write_update
from components.reward_model.losses import LOSS_NAMES, distribution_loss
from components.reward_model.measure import (
    Figures,
    distribution_figures,
    pairwise_agreement,
    pairwise_figures,
)
from components.reward_model.objectives import (
    bradley_terry_objective,
    distribution_objective,
    first_batch_without_pairs,
    prompt_batches,
)
from components.reward_model.params import RewardModelParams
from components.reward_model.pictures import plot_calibration, plot_candidates, write_table
from components.reward_model.predictions import PREDICTIONS, predictions_table
from components.shards import write_shards
from components.train.guard import GuardSettings
from components.train.loop import BatchesAt, LossFn, TrainResult, train
from components.train.schedule import schedule
from components.train.update import AdamWSettings

ROWS_PER_SHARD = 1 << 16
BASELINE = "bradley_terry"
CONSTANT = "constant (training mean)"
LONGEST = "longest answer"
CROWD = "the crowd itself"


def run(params: RewardModelParams, io: StageIO, sink: Sink) -> Report:
    began_at = time.perf_counter()
    torch.set_num_threads(io.num_workers)
    sft = io.inputs["sft"] / "model"
    tokenizer: Any = AutoTokenizer.from_pretrained(sft, local_files_only=True)
    ratings, rows, num_too_long = read_split(params, io, tokenizer, "train")
    held_out, held_out_rows, _ = read_split(params, io, tokenizer, "valid")
    refuse_batches_without_pairs(ratings, params, io)
    batches_at = prompt_batches(
        ratings,
        rows,
        row_length=params.row_length,
        prompts_per_batch=params.prompts_per_batch,
        prompts_per_micro_batch=params.prompts_per_micro_batch,
        seed=io.seed,
    )
    prior = ratings.targets.mean(axis=0)
    names = [name for name in LOSS_NAMES if name == params.loss or params.compare_losses]
    results: dict[str, TrainResult] = {}
    predictions: dict[str, Array] = {}
    for name in names:
        model = reward_model(io, np.log(prior))
        objective = distribution_objective(
            distribution_loss(name, params.tie_breaker, params.distance_power)
        )
        named = sink if name == params.loss else PrefixedSink(sink, f"dprm_{name}")
        results[name] = fit(model, batches_at, objective, params, io, named, name)
        predictions[name] = predict_distributions(model, held_out_rows)
        if name == params.loss:
            save_reward_model(model, sft, io.out / "model")
    model = reward_model(io, np.zeros(1))
    results[BASELINE] = fit(
        model,
        batches_at,
        bradley_terry_objective,
        params,
        io,
        PrefixedSink(sink, BASELINE),
        BASELINE,
    )
    save_reward_model(model, sft, io.out / "baseline")
    write_update(io.out, params.prior_strength, params.smoothing)
    lengths = np.array([float(row.num_response_tokens) for row in held_out_rows])
    scores = {BASELINE: head_outputs(model, held_out_rows)[:, 0], LONGEST: lengths}
    table = predictions_table(held_out, predictions[params.loss], scores[BASELINE])
    write_shards(io.out / "predictions", [table], PREDICTIONS, ROWS_PER_SHARD)
    constant = np.tile(prior, (len(held_out), 1))
    figures, comparison = held_out_figures(
        predictions | {CONSTANT: constant, CROWD: held_out.targets}, scores, held_out, params, io
    )
    write_pages(figures, predictions, comparison, held_out, params, io)
    num_pairs = len(preferred_pairs(held_out.prompt_ids, held_out.rewards))
    return {
        "num_train_prompts": len(prompt_slices(ratings.prompt_ids)),
        "num_train_responses": len(ratings),
        "num_too_long": num_too_long,
        "num_epochs": params.num_steps
        * params.prompts_per_batch
        / len(prompt_slices(ratings.prompt_ids)),
        "num_held_out_prompts": len(prompt_slices(held_out.prompt_ids)),
        "num_held_out_responses": len(held_out),
        "num_held_out_pairs": num_pairs,
    } | {
        "dprm": figures[params.loss],
        "losses": {f"dprm_{name}": figures[name] for name in names},
        "bradley_terry": figures[BASELINE],
        "constant": figures[CONSTANT],
        "crowd": figures[CROWD],
        "longest_answer": figures[LONGEST],
        "gain_over_bradley_terry": comparison,
        "tokens_per_s": results[params.loss].tokens_per_s,
        "resumed_from_step": results[params.loss].resumed_from_step,
        "trained_s": {name: result.elapsed_s for name, result in results.items()},
        "elapsed_s": time.perf_counter() - began_at,
    }


def read_split(
    params: RewardModelParams, io: StageIO, tokenizer: Any, split: str
) -> tuple[Ratings, list[ResponseRow], int]:
    """Ratings and rows of a split, without the answers that exceed `row_length`, and how many."""
    folder = io.inputs["dedup"] / "rated_responses" / split
    ratings = read_ratings(folder, params.prior_strength, params.smoothing)
    if split != "train":
        prompts = prompt_slices(ratings.prompt_ids)[: params.num_held_out_prompts]
        ratings = ratings.select(np.arange(prompts[-1].stop))
    rows = encode_responses(tokenizer, ratings.prompts, ratings.responses)
    fitting = np.array([i for i, row in enumerate(rows) if len(row.ids) <= params.row_length])
    if not len(fitting):
        raise DataError(
            f"{folder}: every answer exceeds {params.row_length} tokens",
            "raise reward_model.row_length",
        )
    return ratings.select(fitting), [rows[i] for i in fitting], len(rows) - len(fitting)


def refuse_batches_without_pairs(ratings: Ratings, params: RewardModelParams, io: StageIO) -> None:
    """Before anything is trained: Bradley-Terry's loss is a mean over a batch's pairs."""
    step = first_batch_without_pairs(
        ratings,
        prompts_per_batch=params.prompts_per_batch,
        num_steps=params.num_steps,
        seed=io.seed,
    )
    if step is not None:
        raise DataError(
            f"dedup's train split: in the batch of step {step}, the crowd prefers no answer to any "
            f"of its {params.prompts_per_batch} prompts over another",
            "raise reward_model.prompts_per_batch, or add prompts with several answers that differ",
        )


def reward_model(io: StageIO, bias: Array) -> RewardModel:
    """The SFT model's backbone and a new head that says `bias` of every answer."""
    language_model: Any = load_model(io.inputs["sft"] / "model")
    model = RewardModel(language_model.model, len(bias))
    with torch.no_grad():
        model.head.bias.copy_(torch.from_numpy(bias))
    return model.to(language_model.device)


def fit(
    model: RewardModel,
    batches_at: BatchesAt,
    loss_fn: LossFn,
    params: RewardModelParams,
    io: StageIO,
    sink: Sink,
    name: str,
) -> TrainResult:
    """Train one model; its checkpoints lie under its name, so a stopped stage goes on with it."""
    sink.info(f"training {name}")
    return train(
        model,
        batches_at,
        loss_fn,
        num_steps=params.num_steps,
        optimiser=AdamWSettings(**params.optimiser.model_dump()),
        schedule=schedule(num_steps=params.num_steps, **params.schedule.model_dump()),
        max_grad_norm=params.max_grad_norm,
        seed=io.seed,
        checkpoints=io.work / "checkpoints" / name,
        checkpoint_every_steps=params.checkpoints.every_steps,
        keep_checkpoints=params.checkpoints.keep,
        guard=GuardSettings(**params.guard.model_dump()),
        sink=sink,
    )


def held_out_figures(
    predictions: Mapping[str, Array],
    scores: Mapping[str, Array],
    held_out: Ratings,
    params: RewardModelParams,
    io: StageIO,
) -> tuple[dict[str, Figures], Figures]:
    """Every model's figures, and the chosen loss's gain over the baseline, pair by pair."""
    sampling = {"num_resamples": params.num_resamples, "seed": io.seed}
    pairs = preferred_pairs(held_out.prompt_ids, held_out.rewards)
    if not len(pairs):
        raise DataError(
            "dedup's valid split: the crowd prefers no answer over another",
            "add rated responses, or prompts with several answers",
        )
    pair_prompts = [held_out.prompt_ids[row] for row in pairs[:, 0]]
    agreements = partial(pairwise_agreement, pairs=pairs)
    ranked = {name: agreements(expected_reward(value)) for name, value in predictions.items()}
    ranked |= {name: agreements(value) for name, value in scores.items()}
    figures = {
        name: distribution_figures(value, held_out, num_bins=params.num_bins, **sampling)
        for name, value in predictions.items()
    }
    for name, values in ranked.items():
        figures.setdefault(name, {}).update(pairwise_figures(values, pair_prompts, **sampling))
    gain = pairwise_figures(ranked[params.loss] - ranked[BASELINE], pair_prompts, **sampling)
    return figures, gain


def write_pages(
    figures: dict[str, Figures],
    predictions: Mapping[str, Array],
    gain: Figures,
    held_out: Ratings,
    params: RewardModelParams,
    io: StageIO,
) -> None:
    io.reports.mkdir(parents=True, exist_ok=True)
    dprm = {f"dprm_{name}": value for name, value in predictions.items()}
    plot_calibration(dprm, held_out, params.num_bins, io.reports / "calibration.png")
    plot_candidates(predictions[params.loss], held_out, io.reports / "candidates.png")
    named = {f"dprm_{name}" if name in predictions else name: row for name, row in figures.items()}
    notes = [
        f"{len(held_out):,} held-out answers, rated by: {', '.join(held_out.raters)}. "
        "± is one standard error (bootstrap over prompts).",
        "",
        "Pairs that the crowd rates equal are left out; a model that scores both answers of a pair "
        "equal gets half a point, so a constant has 0.5.",
        "",
        f"dprm_{params.loss} ranks {gain['pairwise_accuracy']:+.4f} ± "
        f"{gain['pairwise_accuracy_se']:.4f} more pairs right than Bradley-Terry.",
        "",
        "`brier` and `ece` are against single votes, all else against the crowd's posterior. "
        "`the crowd itself` is the floor: what is left when a model knows the posterior.",
    ]
    write_table(named, notes, io.reports / "held_out.md")


class PrefixedSink(Sink):
    """Keeps the series of several models in one stage apart."""

    def __init__(self, sink: Sink, prefix: str) -> None:
        self._sink = sink
        self._prefix = prefix

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._sink.metrics({f"{self._prefix}/{name}": v for name, v in values.items()}, step)

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        self._sink.progress(done, total, unit, model=self._prefix, **figures)

    def info(self, message: str) -> None:
        self._sink.info(message)
