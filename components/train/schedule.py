"""Learning rate as a function of the optimiser step: warm-up, then decay."""

import math
from collections.abc import Callable
from typing import Literal

ScheduleKind = Literal["cosine", "wsd", "constant"]


def schedule(
    kind: ScheduleKind,
    *,
    learning_rate: float,
    num_steps: int,
    warmup_steps: int,
    final_fraction: float,
    decay_fraction: float,
) -> Callable[[int], float]:
    """The rate of step 0..num_steps-1; `learning_rate` is the highest.

    All rise linearly over `warmup_steps`, to reach it at step `warmup_steps`, and (but for
    `constant`) end near `final_fraction` of it:
    - `cosine`: half a cosine from the end of the warm-up (SGDR, arXiv 1608.03983, eq. 5);
    - `wsd`: level, then linear over the last `decay_fraction` of the steps (arXiv 2404.06395);
    - `constant`: level (Yi's fine-tuning, arXiv 2403.04652).
    """

    def rate(step: int) -> float:
        if step < warmup_steps:
            return learning_rate * (step + 1) / (warmup_steps + 1)
        if kind == "constant":
            return learning_rate
        begin = warmup_steps if kind == "cosine" else num_steps - decay_fraction * num_steps
        begin = max(begin, warmup_steps)
        gone = min(max((step - begin) / max(num_steps - begin, 1), 0.0), 1.0)
        left = (1 + math.cos(math.pi * gone)) / 2 if kind == "cosine" else 1 - gone
        return learning_rate * (final_fraction + (1 - final_fraction) * left)

    return rate
