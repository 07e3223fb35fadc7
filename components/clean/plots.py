"""Pictures of what the stage saw and removed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LENGTH_BIN_EDGES = np.logspace(0, 6, 61)
"""Characters, ten bins a decade; what lies outside counts in the outermost bins."""

KEPT_COLOUR, REMOVED_COLOUR = "#2b6cb0", "#c05621"
MAX_BARS = 20


def draw_languages(path: Path, num_documents: Mapping[str, int]) -> None:
    """How many documents each language has; the rarest together, on a logarithmic scale."""
    _bars(path, num_documents, "documents before cleaning", "Languages (fastText lid.176.ftz)")


def draw_reasons(path: Path, reasons: Mapping[str, int], num_documents: int) -> None:
    """How many documents each rule removed."""
    removed = {reason: number for reason, number in reasons.items() if reason}
    share = sum(removed.values()) / max(1, num_documents)
    _bars(
        path,
        removed,
        "documents removed",
        f"{sum(removed.values()):,} of {num_documents:,} documents removed ({share:.1%})",
        colour=REMOVED_COLOUR,
    )


def draw_lengths(path: Path, kept: NDArray[np.int64], removed: NDArray[np.int64]) -> None:
    """Documents by length before cleaning, kept and removed stacked; bins of LENGTH_BIN_EDGES."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    widths = np.diff(LENGTH_BIN_EDGES)
    axes.bar(LENGTH_BIN_EDGES[:-1], kept, widths, align="edge", color=KEPT_COLOUR, label="kept")
    axes.bar(
        LENGTH_BIN_EDGES[:-1],
        removed,
        widths,
        bottom=kept,
        align="edge",
        color=REMOVED_COLOUR,
        label="removed",
    )
    filled = np.flatnonzero(kept + removed)
    if len(filled):
        axes.set_xlim(LENGTH_BIN_EDGES[filled[0]], LENGTH_BIN_EDGES[filled[-1] + 1])
    axes.set_xscale("log")
    axes.set_xlabel("characters of the document")
    axes.set_ylabel("documents")
    axes.set_title("Document lengths")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _bars(
    path: Path, counts: Mapping[str, int], label: str, title: str, colour: str = KEPT_COLOUR
) -> None:
    """Horizontal bars, the largest on top, each with its number."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:MAX_BARS]
    if rest := ordered[MAX_BARS:]:
        shown.append((f"{len(rest)} others", sum(number for _, number in rest)))
    figure = Figure(figsize=(8, 1.4 + 0.28 * max(1, len(shown))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if shown:
        bars = axes.barh([name for name, _ in shown], [n for _, n in shown], color=colour)
        axes.bar_label(bars, [f"{number:,}" for _, number in shown], padding=4)
        axes.set_xscale("symlog")
        axes.invert_yaxis()
        axes.margins(x=0.1)
    else:
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
    axes.set_xlabel(label)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
