"""A picture of the duplicate clusters."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def draw_cluster_sizes(path: Path, sizes: NDArray[np.int64]) -> None:
    """How many clusters have how many documents; bins double from 8 on.

    `sizes` are of all clusters, those of one document included; they are counted in the title only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    copied = sizes[sizes > 1]
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(copied):
        doubling = 2 ** np.arange(3, max(4, int(np.log2(copied.max())) + 2))
        edges = np.concatenate((np.arange(2, 8), doubling))
        edges = edges[: np.searchsorted(edges, copied.max(), side="right") + 1]
        counts = np.histogram(copied, edges)[0]
        labels = [
            f"{low}" if high == low + 1 else f"{low}–{high - 1}" for low, high in pairwise(edges)
        ]
        bars = axes.bar(labels, counts, color="#2b6cb0", width=0.9)
        axes.bar_label(bars, [f"{count:,}" if count else "" for count in counts], padding=2)
        axes.set_yscale("symlog")
    else:
        axes.text(0.5, 0.5, "no duplicates", ha="center", transform=axes.transAxes)
    num_copies = int(copied.sum() - len(copied))
    axes.set_title(
        f"{len(copied):,} clusters of duplicates, {num_copies:,} of {int(sizes.sum()):,} "
        f"documents are copies ({num_copies / max(1, int(sizes.sum())):.1%})"
    )
    axes.set_xlabel("documents in the cluster")
    axes.set_ylabel("clusters")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
