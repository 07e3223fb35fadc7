"""What happens when a loss is not a number or jumps.

The policy: the batch's update is left out and the run goes on, so many times at most; then it
stops with an error that names the step, the learning rate and what to try. A jump is judged against
the recent past by median and median absolute deviation, which a few outliers cannot move.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass

from components.errors import UserError

STANDARD_DEVIATIONS_PER_MAD = 1.4826
"""For a normal distribution; makes the robust z comparable to an ordinary one."""


@dataclass(frozen=True)
class GuardSettings:
    spike_z: float
    """A loss this many robust standard deviations above the recent median is a spike."""
    window_steps: int
    """How many accepted losses the median looks back on; no spike is called before it is full."""
    max_skipped_steps: int
    """So many updates may be left out in one run; the next one stops it."""


class Guard:
    """Judges one step at a time. Its whole memory is `state`, which a checkpoint keeps."""

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._recent: deque[float] = deque(maxlen=settings.window_steps)
        self.skipped_steps: list[int] = []

    def reason_to_skip(self, loss: float, gradients_are_finite: bool) -> str:
        """Why this step's update must be left out; empty if it need not."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not gradients_are_finite:
            return "a gradient is not a finite number"
        if len(self._recent) < self._settings.window_steps:
            return ""
        z = self._robust_z(loss)
        if z > self._settings.spike_z:
            return f"the loss {loss:.3f} is {z:.1f} robust standard deviations above the recent"
        return ""

    def _robust_z(self, loss: float) -> float:
        median = statistics.median(self._recent)
        spread = STANDARD_DEVIATIONS_PER_MAD * statistics.median(
            abs(value - median) for value in self._recent
        )
        return (loss - median) / max(spread, 1e-3 * abs(median), 1e-12)

    def accept(self, loss: float) -> None:
        self._recent.append(loss)

    def skip(self, step: int, reason: str, learning_rate: float) -> None:
        """Count a left-out update. Raises UserError when there were too many."""
        self.skipped_steps.append(step)
        if len(self.skipped_steps) > self._settings.max_skipped_steps:
            raise UserError(
                f"step {step}: {reason}, at learning rate {learning_rate:.3g}; "
                f"{len(self.skipped_steps)} updates left out (steps "
                f"{', '.join(map(str, self.skipped_steps[-5:]))}), at most "
                f"{self._settings.max_skipped_steps} allowed",
                "try a lower learning_rate, a longer warmup_steps or a lower max_grad_norm; "
                "the last checkpoint is kept",
            )

    def state(self) -> dict[str, list[float]]:
        return {"recent": list(self._recent), "skipped_steps": list(self.skipped_steps)}

    def restore(self, state: dict[str, list[float]]) -> None:
        self._recent.clear()
        self._recent.extend(state["recent"])
        self.skipped_steps = [int(step) for step in state["skipped_steps"]]
