"""The sink that writes a stage's figures to JSON lines and its progress to the terminal.

The file is the truth; whoever mirrors it (MLflow, a UI) may be away and catch up later.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from components.contract import Sink

PROGRESS_INTERVAL_S = 2.0


class JsonLinesSink(Sink):
    """Appends `{"at": unix seconds, "step": n, "metrics": {...}}` and `{"at", "progress": {...}}` lines.

    A line is written whole with one call, so a reader never sees half of one but for a kill
    inside the write itself; readers skip a last line without a newline, and one that is no JSON.
    A step that an earlier process logged is not logged again: a stage that goes on from a
    checkpoint computes the steps after it a second time, to the same figures.
    """

    def __init__(self, path: Path, stage: str) -> None:
        self._last_steps = last_steps(path)
        half = ends_in_half_a_line(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if half:
            self._file.write("\n")
        self._stage = stage
        self._started_at = time.monotonic()
        self._first_done: int | None = None
        self._printed_at = -math.inf

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        finite = {
            name: value if math.isfinite(value) else str(value)
            for name, value in values.items()
            if step > self._last_steps.get(name, -1)
        }
        if finite:
            self._write({"step": step, "metrics": finite})

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        now = time.monotonic()
        if self._first_done is None:
            self._first_done, self._started_at = done, now
        if now - self._printed_at < PROGRESS_INTERVAL_S and done < total:
            return
        self._printed_at = now
        elapsed_s = now - self._started_at
        advanced = done - self._first_done
        left_s = elapsed_s / advanced * (total - done) if advanced > 0 else None
        self._write(
            {"progress": {"done": done, "total": total, "unit": unit, "left_s": left_s} | figures}
        )
        _say(progress_line(self._stage, done, total, unit, left_s, figures))
        if done >= total:
            self._first_done = None

    def info(self, message: str) -> None:
        _say(f"{self._stage}: {message}")

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: dict[str, object]) -> None:
        try:
            self._file.write(json.dumps({"at": round(time.time(), 3)} | entry) + "\n")
        except OSError as error:  # a full disk must not end a training run for a figure
            _say(f"{self._stage}: a figure was not written: {error}")


def _say(line: str) -> None:
    """Print it; a log on a full disk goes without."""
    with suppress(OSError):
        print(line, flush=True)


def last_steps(path: Path) -> dict[str, int]:
    """The highest step of each metric that the JSON lines at `path` hold; empty if there are none."""
    found: dict[str, int] = {}
    if not path.exists():
        return found
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:  # a kill inside a write left half a line
                continue
            for name in entry.get("metrics", {}):
                found[name] = max(found.get(name, -1), entry["step"])
    return found


def ends_in_half_a_line(path: Path) -> bool:
    """Whether the last byte at `path` is no newline; what is appended would be lost with that line."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


class QuietSink(Sink):
    """Takes everything and shows nothing: for ranks above 0."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        pass

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        pass

    def info(self, message: str) -> None:
        pass


def progress_line(
    stage: str,
    done: int,
    total: int,
    unit: str,
    left_s: float | None,
    figures: Mapping[str, float | str],
) -> str:
    """`pretrain:   40/900 steps   4%  loss_nats 4.21  12m05s left`."""
    width = len(f"{total:,}")
    share = done / total if total else 1.0
    parts = [f"{stage}: {done:>{width},}/{total:,} {unit} {share:4.0%}"]
    parts += [f"{name} {_short(value)}" for name, value in figures.items()]
    if left_s is not None and done < total:
        minutes, seconds = divmod(round(left_s), 60)
        parts.append(f"{minutes}m{seconds:02d}s left" if minutes else f"{seconds}s left")
    return "  ".join(parts)


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
