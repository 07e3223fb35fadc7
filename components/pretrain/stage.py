"""Train the language model from nothing on packed documents."""

import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from components.contract import Report, Sink, StageIO
from components.errors import DataError
from components.model.llama import (
    build_model,
    flops_per_token,
    llama_config,
    num_parameters,
    save_model,
)
from components.model.packed import next_token_loss
from components.pretrain.params import PretrainParams
from components.tokens import TokenDocuments
from components.train.curve import plot_curve
from components.train.guard import GuardSettings
from components.train.loop import Batch, Loss, mean_loss, train
from components.train.packing import batch_of, micro_batches, pack, rows_at
from components.train.parallel import rank
from components.train.schedule import schedule
from components.train.update import AdamWSettings

BITS_PER_NAT = 1 / math.log(2)


def run(params: PretrainParams, io: StageIO, sink: Sink) -> Report:
    began_at = time.perf_counter()
    torch.set_num_threads(io.num_workers)
    batch = params.batch
    tokenizer = io.inputs["tokenize"] / "tokenizer"
    documents = open_documents(io, "train")
    packing = pack(documents.num_tokens, batch.row_length, io.seed)
    at = rows_at(len(packing.rows), batch.rows_per_batch, io.seed)
    held_out = validation(open_documents(io, "valid"), params)

    model = build_model(
        llama_config(
            vocab_size=Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size(),
            **params.model.model_dump(),
        ),
        seed=io.seed,
        attention=params.attention,
    )
    if params.compile:
        model.model.compile()
    rate = schedule(num_steps=params.num_steps, **params.schedule.model_dump())
    tokens_per_parameter = params.num_steps * batch.tokens_per_batch / num_parameters(model)
    sink.info(
        f"{num_parameters(model):,} parameters, {len(packing.rows):,} rows of {batch.row_length} "
        f"({packing.fill_fraction:.1%} full), {tokens_per_parameter:.1f} tokens a parameter"
    )
    result = train(
        model,
        lambda step: [
            batch_of(packing, rows, documents.__getitem__)
            for rows in micro_batches(at(step), batch.rows_per_micro_batch)
        ],
        language_loss,
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
        flops_per_token=flops_per_token(model, packing.mean_attended),
    )
    if rank() == 0:
        save_model(model, tokenizer, io.out / "model")
        io.reports.mkdir(parents=True, exist_ok=True)
        plot_curve(result, rate, "valid/loss_nats", "pretrain", io.reports / "loss.png")
    (_, before), *_, (_, after) = result.evaluations
    return {
        "num_steps": params.num_steps,
        "num_parameters": num_parameters(model),
        "num_rows": len(packing.rows),
        "num_documents_cut": packing.num_cut,
        "row_fill_fraction": packing.fill_fraction,
        "num_epochs": params.num_steps * batch.rows_per_batch / len(packing.rows),
        "train": result.figures(),
        "valid": {
            "loss_nats_before": before["valid/loss_nats"],
            "loss_nats": after["valid/loss_nats"],
            "bits_per_byte": after["valid/bits_per_byte"],
        },
        "elapsed_s": time.perf_counter() - began_at,
    }


def language_loss(model: nn.Module, batch: Batch) -> Loss:
    """Next-token cross-entropy, in nats, over every position of the rows."""
    total, num_targets = next_token_loss(
        model, batch["input_ids"], batch["position_ids"], batch["targets"]
    )
    return Loss(total, num_targets)


def open_documents(io: StageIO, split: str) -> TokenDocuments:
    documents = TokenDocuments(io.inputs["tokenize"] / "tokens" / split)
    if not len(documents):
        raise DataError(f"tokenize's {split} split holds no document", "see dedup's report")
    return documents


def validation(
    documents: TokenDocuments, params: PretrainParams
) -> Callable[[nn.Module], Mapping[str, float]]:
    """Measure loss and bits per byte on the first documents, up to `max_valid_tokens` tokens."""
    within = documents.num_tokens.cumsum() <= params.max_valid_tokens
    chosen = max(int(within.sum()), 1)
    packing = pack(documents.num_tokens[:chosen], params.batch.row_length, seed=0)
    batches = [
        batch_of(packing, rows, documents.__getitem__)
        for rows in micro_batches(np.arange(len(packing.rows)), params.batch.rows_per_micro_batch)
    ]
    num_targets = int(documents.num_tokens[:chosen].sum()) - chosen
    targets_per_byte = num_targets / int(documents.num_bytes[:chosen].sum())

    def measure(model: nn.Module) -> Mapping[str, float]:
        nats = mean_loss(model, batches, language_loss)["loss_nats"]
        bits_per_byte = nats * BITS_PER_NAT * targets_per_byte
        return {"valid/loss_nats": nats, "valid/bits_per_byte": bits_per_byte}

    return measure
