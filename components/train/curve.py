"""The picture of a training run."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from components.train.loop import TrainResult


def plot_curve(
    result: TrainResult, rate: Callable[[int], float], valid_metric: str, title: str, path: Path
) -> None:
    """Training loss (each step and smoothed), held-out loss, and the learning rate below."""
    from matplotlib.figure import Figure

    steps = range(1, len(result.losses) + 1)
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    top.plot(steps, result.losses, color="#9bb8d3", linewidth=0.6, label="train, each step")
    top.plot(steps, smoothed(result.losses), color="#1f4e79", label="train, smoothed")
    held_out = [(step, figures[valid_metric]) for step, figures in result.evaluations]
    top.plot(*zip(*held_out, strict=True), "o-", color="#c0504d", markersize=4, label=valid_metric)
    for step in result.skipped_steps:
        top.axvline(step + 1, color="grey", linestyle=":", linewidth=0.8)
    top.set(ylabel="loss, nats", title=title)
    top.grid(alpha=0.3)
    top.legend()
    bottom.plot(steps, [rate(step - 1) for step in steps], color="#4f7942")
    bottom.set(xlabel="optimiser step", ylabel="learning rate")
    bottom.grid(alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def smoothed(values: Sequence[float], weight: float = 0.95) -> list[float]:
    """Exponential moving average without the pull of its start; NaN does not enter."""
    total = mass = 0.0
    out = []
    for value in values:
        if math.isfinite(value):
            total = weight * total + (1 - weight) * value
            mass = weight * mass + (1 - weight)
        out.append(total / mass if mass else math.nan)
    return out
