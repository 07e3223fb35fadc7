"""What a stage gets and what it gives back.

A stage is a module `components.<stage>.stage` with one function

    run(params, io, sink) -> Report

and, if it is one of ON_MANY_MACHINES, a second one, which computes pieces for the first:

    assist(params, io, share, sink) -> None

`params` is the stage's section of params.yaml, already validated; `io` says where to read and
write; `sink` takes what people want to see while it runs. The stage fills `io.out`; publishing it
is the launcher's work, so a stage that fails publishes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

STAGES = (
    "ingest",
    "clean",
    "dedup",
    "tokenize",
    "pretrain",
    "sft",
    "reward_model",
    "dpo",
    "quantize",
    "evaluate",
)

ON_MANY_RANKS = ("pretrain", "sft")
"""Stages whose training loop spreads a batch over ranks and whose first rank alone publishes; any
other would run whole, once on each rank, and write over itself."""

ON_MANY_MACHINES = ("ingest", "clean", "dedup", "tokenize")
"""Stages whose long part is a map over pieces, which other machines can compute as well."""

Json = Any  # what json.dumps takes: numbers, strings, None, and lists and dicts of them
Report = dict[str, Json]


@dataclass(frozen=True)
class Share:
    """One machine's part of a stage that several compute; see `components/sharing.py`.

    The first leads: it runs the stage, and needs none of the others. They assist it.
    """

    index: int
    """0 <= index < num; 0 leads."""
    num: int
    folder: Path
    """Where pieces lie, on a volume that all machines see. The leader makes it; it goes when the
    stage has succeeded."""


class LeaderLeft(Exception):
    """What `assist` raises when the folder is gone: the leader is through, or another replaces it."""


@dataclass(frozen=True)
class StageIO:
    """Where one attempt of a stage reads and writes."""

    inputs: Mapping[str, Path]
    """Published folder of each stage this one depends on, by stage name."""
    out: Path
    """Empty folder; what is in it at the end becomes `artifacts/<stage>`."""
    work: Path
    """Survives a failed attempt with the same key: checkpoints, and what a restart need not redo."""
    reports: Path
    """Pages and pictures for people; becomes `reports/<stage>/`."""
    cache: Path
    """Outlives the key, and may be gone or shared with another run at any time: a file here is
    named by the digest of all it depends on, appears by rename, and never changes a result."""
    seed: int
    """The run's seed; every random choice derives from it."""
    num_workers: int
    """Processes or threads to use, >= 1. It must never change the result."""
    share: Share | None = None
    """None: this machine computes the stage alone. It must never change the result."""


class Sink(Protocol):
    """Where a running stage says how it goes. Every call is cheap and never raises for the reader's sake."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """One point of the time series; names are paths such as `train/loss_nats`."""

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """How far the work is; printed at most every few seconds, with the rate and the time left."""

    def info(self, message: str) -> None:
        """One line for the log."""
