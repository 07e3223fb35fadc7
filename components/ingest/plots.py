"""Pictures of what came in: how long documents are, and how candidates were rated."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.schemas import CATEGORIES, NUM_CATEGORIES

COLOURS = ("#1b7837", "#7fbf7b", "#d9d9d9", "#fdae61", "#f46d43", "#a50026")


def plot_document_lengths(
    path: Path, edges: NDArray[np.float64], counts: Mapping[str, Sequence[int]]
) -> None:
    """One panel for each source, below each other on one scale: its documents by length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + max(2.5, 0.9 * len(counts))), layout="constrained")
    panels = figure.subplots(len(counts), 1, sharex=True, squeeze=False)[:, 0]
    used = np.flatnonzero(np.sum(list(counts.values()), axis=0))
    for axes, (source, found) in zip(panels, counts.items(), strict=True):
        axes.stairs(found, edges, fill=True)
        axes.set_title(f"{source}: {sum(found):,}", loc="left", fontsize=9)
        axes.locator_params(axis="y", nbins=3)
        axes.tick_params(labelsize=8)
    panels[0].set_xscale("log")
    panels[0].set_xlim(edges[max(0, used[0] - 1)], edges[min(len(edges) - 1, used[-1] + 2)])
    panels[-1].set_xlabel("length of a document, characters")
    figure.supylabel("documents in a bin, ten bins for each power of ten", fontsize=9)
    figure.suptitle("Document lengths by source")
    figure.savefig(path, dpi=120)


def plot_votes(path: Path, rater: str, votes: Mapping[str, NDArray[np.int64]]) -> None:
    """One bar for each kind of candidate: the shares of the six categories among its votes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 * len(votes) + 2), layout="constrained")
    axes = figure.subplots()
    kinds = list(votes)
    shares = np.zeros((len(kinds), NUM_CATEGORIES))  # none at all where nothing can be rated
    for row, kind in enumerate(kinds):
        shares[row] = votes[kind] / max(1, votes[kind].sum())
    left = np.zeros(len(kinds))
    for category in range(NUM_CATEGORIES):
        share = shares[:, category]
        bars = axes.barh(
            kinds, share, left=left, color=COLOURS[category], label=CATEGORIES[category]
        )
        labels = [f"{value:.0%}" if value >= 0.05 else "" for value in share]
        ink = "white" if category in (0, NUM_CATEGORIES - 1) else "black"
        axes.bar_label(bars, labels, label_type="center", fontsize=8, color=ink)
        left += share
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of votes")
    figure.suptitle(f"Votes by kind of candidate. Rater: {rater}")
    figure.legend(ncols=3, loc="outside lower center", fontsize=8)
    figure.savefig(path, dpi=120)
