"""The one training loop: pretraining, fine-tuning, reward model and preferences differ in the loss.

What a step computes is a function of its number alone: its batches, its learning rate and its
random state. A run that stopped goes on from its newest checkpoint and ends with the same weights:
to the bit on a CPU, to rounding on a GPU, whose attention adds its gradient as its blocks finish.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from components.contract import Sink
from components.errors import InfraError, UserError
from components.metrics import QuietSink
from components.train import stop
from components.train.checkpoint import Checkpoint, load_newest_checkpoint, save_checkpoint
from components.train.guard import Guard, GuardSettings
from components.train.hardware import model_flops_utilisation, peak_flops_per_s
from components.train.parallel import ZeroUpdate, world_size
from components.train.update import AdamWSettings, LocalUpdate, Update

Batch = Mapping[str, Tensor]


class Loss(NamedTuple):
    """A sum over a micro-batch, and what it is a sum of."""

    total: Tensor
    """0-d, differentiable."""
    weight: float
    """What the sum is divided by: target tokens, pairs."""
    figures: Mapping[str, float | Tensor] = MappingProxyType({})
    """Further sums, divided by the weight too; logged as `train/<name>`."""


LossFn = Callable[[nn.Module, Batch], Loss]
BatchesAt = Callable[[int], Sequence[Batch]]
"""Optimiser step -> the micro-batches of the global batch. It must be a pure function."""
Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class TrainResult:
    num_steps: int
    losses: list[float]
    """Mean loss of each step, in nats; NaN where the update was left out for it."""
    evaluations: list[tuple[int, dict[str, float]]]
    """Steps done, and what `evaluate` gave then: before the first, every so often, at the end."""
    skipped_steps: list[int]
    resumed_from_step: int
    """0 for a run from the start."""
    elapsed_s: float
    """Of this process; earlier ones that it resumed are not in it. Nor are evaluations."""
    tokens_per_s: float
    """Of this process's steps but its first, which compiles, if it did more than one."""
    mfu: float | None
    """Model FLOPs utilisation, 0..1, at that speed; None if `flops_per_token` was not given."""

    def figures(self) -> dict[str, float | None]:
        """What is worth comparing between runs; the last loss is the mean of the last 5%."""
        last = self.losses[-max(1, len(self.losses) // 20) :]
        finite = [loss for loss in last if math.isfinite(loss)]
        return {
            "first_loss_nats": self.losses[0],
            "last_loss_nats": sum(finite) / len(finite) if finite else None,
            "num_skipped_steps": len(self.skipped_steps),
            "resumed_from_step": self.resumed_from_step,
            "tokens_per_s": self.tokens_per_s,
            "mfu": self.mfu,
            "trained_s": self.elapsed_s,
        }


@dataclass
class _Run:
    """What a checkpoint holds."""

    model: nn.Module
    update: Update
    guard: Guard
    seed: int
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)


def train(
    model: nn.Module,
    batches_at: BatchesAt,
    loss_fn: LossFn,
    *,
    num_steps: int,
    optimiser: AdamWSettings,
    schedule: Callable[[int], float],
    max_grad_norm: float,
    seed: int,
    checkpoints: Path,
    checkpoint_every_steps: int,
    keep_checkpoints: int,
    guard: GuardSettings,
    sink: Sink,
    evaluate: Evaluate | None = None,
    evaluate_every_steps: int = 0,
    flops_per_token: float | None = None,
) -> TrainResult:
    """Train `model` in place for `num_steps` optimiser steps, resuming if `checkpoints` holds some.

    The summed loss is divided by the global weight, so neither the split into micro-batches nor
    the number of ranks changes the result. `evaluate` is called on every rank, before the first
    step, every `evaluate_every_steps` (0: never between) and at the end. Raises UserError if the
    loss stays NaN or keeps jumping (see `guard`), if the micro-batches do not divide among the
    ranks, or if GPU memory runs out; InfraError once a requested stop's checkpoint is written.
    """
    update = make_update(model, optimiser, max_grad_norm)
    if update.rank > 0:
        sink = QuietSink()
    device = next(model.parameters()).device
    watch = Guard(guard)
    run = _Run(model, update, watch, seed)
    start = _resume(run, checkpoints, sink)
    peak = peak_flops_per_s(device) if flops_per_token else None
    log_every = max(1, num_steps // 1000)
    trained_s = 0.0
    timed_s, num_tokens = 0.0, 0

    def look(step: int) -> None:
        if evaluate is not None:
            model.eval()
            with torch.no_grad():
                figures = {name: float(value) for name, value in evaluate(model).items()}
            model.train()
            run.evaluations.append((step, figures))
            sink.metrics(figures, step)

    def keep(step: int) -> None:
        _save(run, checkpoints, step, keep_checkpoints)

    model.train()
    if start == 0 and not run.evaluations:  # a stop before the first step is kept as checkpoint 0
        look(0)
    with stop.watched():
        for step in range(start, num_steps):
            if stop_requested(update):
                keep(step)
                raise InfraError(
                    f"stopped after checkpoint {step}/{num_steps}", "start it again to go on"
                )
            if step == start + 1:
                timed_s, num_tokens = 0.0, 0
            began_at = time.perf_counter()
            rate = schedule(step)
            loss, weight, figures, tokens = _accumulate(
                run, batches_at(step), loss_fn, step=step, device=device
            )
            grad_norm = math.nan
            reason = watch.reason_to_skip(loss, update.gradients_are_finite())
            if reason:
                update.discard()
                sink.info(f"step {step}: {reason}; its update is left out")
                watch.skip(step, reason, rate)
            else:
                grad_norm = update.apply(weight, rate)
                watch.accept(loss)
            run.losses.append(loss)
            elapsed_s = time.perf_counter() - began_at
            trained_s += elapsed_s
            timed_s += elapsed_s
            num_tokens += tokens
            if step % log_every == 0 or step + 1 == num_steps:
                values = {f"train/{name}": value for name, value in figures.items()}
                values |= {
                    "train/loss_nats": loss,
                    "train/learning_rate": rate,
                    "train/grad_norm": grad_norm,
                    "train/tokens_per_s": tokens / elapsed_s,
                }
                if flops_per_token and peak:
                    values["train/mfu"] = model_flops_utilisation(
                        tokens / elapsed_s, flops_per_token, peak * update.world
                    )
                sink.metrics(values, step + 1)
            sink.progress(
                step + 1,
                num_steps,
                "steps",
                loss_nats=loss,
                tokens_per_s=num_tokens / max(timed_s, 1e-9),
            )
            done = step + 1
            if done == num_steps or (evaluate_every_steps and done % evaluate_every_steps == 0):
                look(done)
            if done % checkpoint_every_steps == 0 or done == num_steps:
                keep(done)
    model.eval()
    tokens_per_s = num_tokens / timed_s if timed_s else 0.0
    return TrainResult(
        num_steps=num_steps,
        losses=run.losses,
        evaluations=run.evaluations,
        skipped_steps=watch.skipped_steps,
        resumed_from_step=start,
        elapsed_s=trained_s,
        tokens_per_s=tokens_per_s,
        mfu=model_flops_utilisation(tokens_per_s, flops_per_token, peak * update.world)
        if flops_per_token and peak
        else None,
    )


def mean_loss(model: nn.Module, batches: Sequence[Batch], loss_fn: LossFn) -> dict[str, float]:
    """`loss_nats` and the figures over held-out batches, divided by their summed weight."""
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    weight = 0.0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            with autocast(device):
                loss = loss_fn(model, _to(batch, device))
            weight += loss.weight
            for name, value in {"loss_nats": loss.total, **loss.figures}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
    model.train(was_training)
    return {name: value / weight for name, value in sums.items()}


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bf16 on a GPU; fp32 on a CPU, where bf16 is an emulation and far slower."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def make_update(model: nn.Module, optimiser: AdamWSettings, max_grad_norm: float) -> Update:
    """Plain AdamW on one rank, ZeRO-1 on several."""
    if world_size() == 1:
        return LocalUpdate(model, optimiser, max_grad_norm)
    return ZeroUpdate(model, optimiser, max_grad_norm)


def random_state(seed: int, step: int, micro_batch: int) -> int:
    """The seed of one micro-batch: a function of its position, so a resumed run draws the same."""
    text = f"{seed}/{step}/{micro_batch}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def stop_requested(update: Update) -> bool:
    """Whether any rank was asked to stop; all ranks agree."""
    if update.world == 1:
        return stop.is_requested()
    return bool(update.sum(torch.tensor([float(stop.is_requested())]))[0] > 0)


def _accumulate(
    run: _Run, batches: Sequence[Batch], loss_fn: LossFn, *, step: int, device: torch.device
) -> tuple[float, float, dict[str, float], int]:
    """Gradients of this rank's micro-batches; global mean loss, weight, mean figures and tokens."""
    update = run.update
    if len(batches) % update.world:
        raise UserError(
            f"step {step}: {len(batches)} micro-batches do not divide among {update.world} ranks",
            "choose tokens per batch and rows per micro-batch so that they do",
        )
    names: list[str] = []
    sums: Tensor | None = None
    try:
        for index in range(update.rank, len(batches), update.world):
            batch = _to(batches[index], device)
            torch.manual_seed(random_state(run.seed, step, index))
            with autocast(device):
                loss = loss_fn(run.model, batch)
            update.backward(loss.total)
            names = sorted(loss.figures)
            values = [loss.total.detach(), loss.weight, _num_tokens(batch)]
            values += [loss.figures[name] for name in names]
            row = torch.stack(
                [torch.as_tensor(value, dtype=torch.float64, device=device) for value in values]
            )
            sums = row if sums is None else sums + row
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"step {step}: out of GPU memory", "lower rows_per_micro_batch, or the model's size"
        ) from error
    if sums is None:
        raise UserError(f"step {step}: an empty batch", "there must be at least one micro-batch")
    total, weight, tokens, *rest = update.sum(sums).tolist()
    figures = {name: value / weight for name, value in zip(names, rest, strict=True)}
    return total / weight, weight, figures, int(tokens)


def _num_tokens(batch: Batch) -> int:
    return batch["input_ids"].numel() if "input_ids" in batch else 0


def _to(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _resume(run: _Run, checkpoints: Path, sink: Sink) -> int:
    """Steps done, after restoring the newest whole checkpoint; 0 if there is none."""
    found = load_newest_checkpoint(checkpoints, sink.info)
    if found is None:
        return 0
    present = {name: tensor.shape for name, tensor in run.model.state_dict().items()}
    stored = {name: tensor.shape for name, tensor in found.weights.items()}
    if present != stored or found.state["seed"] != run.seed:
        raise UserError(
            f"{checkpoints}: checkpoints of another model or seed", "remove the folder, or move it"
        )
    run.model.load_state_dict(dict(found.weights))
    run.update.restore(found.optimiser, found.step - len(found.state["guard"]["skipped_steps"]))
    run.guard.restore(found.state["guard"])
    run.losses = [math.nan if loss is None else loss for loss in found.state["losses"]]
    run.evaluations = [(step, figures) for step, figures in found.state["evaluations"]]
    sink.info(f"going on from checkpoint {found.step}")
    return found.step


def _save(run: _Run, checkpoints: Path, step: int, keep: int) -> None:
    optimiser = run.update.state()
    if run.update.rank > 0:
        return
    state = {
        "seed": run.seed,
        "guard": run.guard.state(),
        "losses": [loss if math.isfinite(loss) else None for loss in run.losses],
        "evaluations": run.evaluations,
    }
    save_checkpoint(checkpoints, Checkpoint(step, run.model.state_dict(), optimiser, state), keep)
