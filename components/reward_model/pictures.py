"""Pages about a reward model: two pictures and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.preference.crowd import REWARDS, Array
from components.preference.ratings import Ratings
from components.reward_model.calibration import probability_bins
from components.reward_model.measure import Figures
from components.schemas import CATEGORIES

CATEGORY_COLOURS = ("#1a7f37", "#7bc47f", "#d9d9d9", "#f2b36b", "#e0702e", "#a61b1b")


def plot_calibration(
    predictions: Mapping[str, Array], ratings: Ratings, num_bins: int, path: Path
) -> None:
    """Predicted probability against the share of votes, all categories, for each named model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="calibrated")
    for name, predicted in predictions.items():
        bins = probability_bins(predicted, ratings.counts, num_bins)
        x, y, _ = zip(*bins, strict=True)
        axes.plot(x, y, "o-", markersize=4, label=name)
    axes.set(
        xlabel="predicted probability of a category",
        ylabel="share of the crowd's votes",
        title=f"{len(ratings):,} held-out answers ({', '.join(ratings.raters)})",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def plot_candidates(predicted: Array, ratings: Ratings, path: Path) -> None:
    """Predicted and crowd's mean distribution, side by side for each kind of answer."""
    from matplotlib.figure import Figure

    kinds = sorted(set(ratings.candidates))
    figure = Figure(figsize=(9, 0.9 + 0.75 * len(kinds)), layout="constrained")
    axes = figure.subplots()
    names = np.array(ratings.candidates)
    for place, kind in enumerate(kinds):
        for offset, values in ((0.2, ratings.targets), (-0.2, predicted)):
            mean = values[names == kind].mean(axis=0)
            left = 0.0
            for share, colour in zip(mean, CATEGORY_COLOURS, strict=True):
                axes.barh(place + offset, share, 0.36, left=left, color=colour)
                left += share
            axes.text(1.01, place + offset, f"{mean @ REWARDS:+.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(kinds)), [f"{kind}\n(crowd above, model below)" for kind in kinds])
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlim=(0, 1), xlabel=f"share; on the right the expected reward. {ratings.raters[0]}")
    handles = [
        axes.barh(0, 0, color=colour, label=name)
        for colour, name in zip(CATEGORY_COLOURS, CATEGORIES, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


COLUMNS = ("ce_nats", "w1_index", "ot_reward", "reward_error", "brier", "ece", "pairwise_accuracy")


def write_table(rows: Mapping[str, Figures], notes: Sequence[str], path: Path) -> None:
    """The held-out figures of each model as a Markdown table, then the notes."""
    lines = [f"| model | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, figures in rows.items():
        cells = [
            f"{figures[column]:.4f} ± {figures[f'{column}_se']:.4f}" if column in figures else ""
            for column in COLUMNS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    path.write_text("\n".join([*lines, "", *notes]) + "\n", encoding="utf-8")
