"""Teach the pretrained model to answer: ChatML, loss on the answers alone, NEFTune."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer

from components import chat
from components.contract import Report, Sink, StageIO
from components.errors import DataError
from components.model.llama import flops_per_token, load_model, save_model
from components.model.packed import next_token_loss
from components.sft.neftune import noisy
from components.sft.params import SftParams
from components.shards import read_table
from components.train.curve import plot_curve
from components.train.guard import GuardSettings
from components.train.loop import Batch, Loss, mean_loss, train
from components.train.packing import batch_of, micro_batches, pack, rows_at
from components.train.parallel import rank
from components.train.schedule import schedule
from components.train.update import AdamWSettings


def run(params: SftParams, io: StageIO, sink: Sink) -> Report:
    began_at = time.perf_counter()
    torch.set_num_threads(io.num_workers)
    batch = params.batch
    folder = io.inputs["pretrain"] / "model"
    conversations = io.inputs["dedup"] / "conversations"
    data = encoded(conversations / "train", folder, batch.row_length)
    packing = pack([len(ids) for ids in data.ids], batch.row_length, io.seed)
    at = rows_at(len(packing.rows), batch.rows_per_batch, io.seed)
    held_out = validation(encoded(conversations / "valid", folder, batch.row_length), params)
    sink.info(
        f"{len(data.ids):,} conversations, {data.num_too_long} longer than a row left out; "
        f"{len(packing.rows):,} rows of {batch.row_length} ({packing.fill_fraction:.1%} full)"
    )

    target_fraction = sum(map(sum, data.is_response)) / (len(packing.rows) * batch.row_length)
    model = load_model(folder, attention=params.attention)
    if params.compile:
        model.model.compile()
    rate = schedule(num_steps=params.num_steps, **params.schedule.model_dump())
    result = train(
        model,
        lambda step: [
            batch_of(packing, rows, data.ids.__getitem__, data.is_response.__getitem__)
            for rows in micro_batches(at(step), batch.rows_per_micro_batch)
        ],
        partial(response_loss, neftune_alpha=params.neftune_alpha),
        num_steps=params.num_steps,
        optimiser=AdamWSettings(**params.optimiser.model_dump()),
        schedule=rate,
        max_grad_norm=params.max_grad_norm,
        seed=io.seed,
        checkpoints=io.work / "checkpoints",
        checkpoint_every_steps=params.checkpoints.every_steps,
        keep_checkpoints=params.checkpoints.keep,
        guard=GuardSettings(**params.guard.model_dump()),
        sink=sink,
        evaluate=held_out,
        evaluate_every_steps=params.evaluate_every_steps,
        flops_per_token=flops_per_token(model, packing.mean_attended, target_fraction),
    )
    if rank() == 0:
        save_model(model, folder, io.out / "model")
        io.reports.mkdir(parents=True, exist_ok=True)
        plot_curve(result, rate, VALID_LOSS, "sft, answers only", io.reports / "loss.png")
    (_, before), *_, (_, after) = result.evaluations
    return {
        "num_steps": params.num_steps,
        "num_conversations": len(data.ids),
        "num_conversations_too_long": data.num_too_long,
        "num_rows": len(packing.rows),
        "row_fill_fraction": packing.fill_fraction,
        "num_epochs": params.num_steps * batch.rows_per_batch / len(packing.rows),
        "train": result.figures(),
        "valid": {
            "response_loss_nats_before": before[VALID_LOSS],
            "response_loss_nats": after[VALID_LOSS],
        },
        "elapsed_s": time.perf_counter() - began_at,
    }


VALID_LOSS = "valid/response_loss_nats"


def response_loss(model: nn.Module, batch: Batch, neftune_alpha: float) -> Loss:
    """Cross-entropy in nats over answer tokens; noise on the embeddings only while training."""
    embeddings = None
    if model.training and neftune_alpha:
        table: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
        embeddings = noisy(table(batch["input_ids"]), batch["position_ids"], neftune_alpha)
    total, num_targets = next_token_loss(
        model, batch["input_ids"], batch["position_ids"], batch["targets"], embeddings
    )
    return Loss(total, num_targets)


@dataclass(frozen=True)
class Encoded:
    ids: list[list[int]]
    is_response: list[list[bool]]
    num_too_long: int


def encoded(table: Path, tokenizer: Path, max_tokens: int) -> Encoded:
    """The conversations of a table as ids; those that no row holds whole are left out, counted.

    Raises DataError if none is left, for there would be nothing to learn from.
    """
    messages = read_table(table, ["messages"]).column("messages").to_pylist()
    pairs = chat.encode_all(AutoTokenizer.from_pretrained(tokenizer), messages)
    kept = [(ids, mask) for ids, mask in pairs if len(ids) <= max_tokens and any(mask)]
    if not kept:
        raise DataError(
            f"{table}: no conversation with an answer fits into {max_tokens} tokens",
            "raise sft.batch.row_length, or see ingest's report for the conversations",
        )
    return Encoded([ids for ids, _ in kept], [mask for _, mask in kept], len(pairs) - len(kept))


def validation(data: Encoded, params: SftParams) -> Callable[[nn.Module], Mapping[str, float]]:
    """Measure the answers' loss on the first held-out conversations."""
    count = min(len(data.ids), params.max_valid_conversations)
    packing = pack([len(ids) for ids in data.ids[:count]], params.batch.row_length, seed=0)
    batches = [
        batch_of(packing, rows, data.ids.__getitem__, data.is_response.__getitem__)
        for rows in micro_batches(np.arange(len(packing.rows)), params.batch.rows_per_micro_batch)
    ]

    def measure(model: nn.Module) -> Mapping[str, float]:
        loss = mean_loss(model, batches, partial(response_loss, neftune_alpha=0.0))
        return {VALID_LOSS: loss["loss_nats"]}

    return measure
