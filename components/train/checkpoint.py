"""Checkpoints: everything a run needs to go on as if it had never stopped.

One folder for each: `weights.safetensors`, `optimiser.safetensors` and, written last, `state.json`
with the digests of both. A folder appears by rename and is whole or absent; one that is damaged
later is recognised by its digests, and the one before it is used.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.contract import Json

WEIGHTS = "weights.safetensors"
OPTIMISER = "optimiser.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    step: int
    """Optimiser steps done; also the cursor into the data, and with the seed the random state."""
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    """`<state>.<weight's name>`, whole tensors whatever the number of ranks."""
    state: Mapping[str, Json]


def save_checkpoint(root: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `root/step-<n>` atomically, then remove all but the newest `keep`.

    A disk that is full raises OSError or SafetensorError; what was there before stays, and only that.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"step-{checkpoint.step:09d}"
    part = root / f".part-{checkpoint.step:09d}"
    for half in root.glob(
        ".part-*"
    ):  # of a run that was killed while it wrote: as large as a whole one
        shutil.rmtree(half, ignore_errors=True)
    part.mkdir()
    try:
        _write(part, checkpoint)
    except (OSError, SafetensorError):
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    _fsync(root)
    for old in _folders(root)[keep:]:
        shutil.rmtree(old)
    return folder


def _write(part: Path, checkpoint: Checkpoint) -> None:
    digests = {}
    for name, tensors in ((WEIGHTS, checkpoint.weights), (OPTIMISER, checkpoint.optimiser)):
        save_file(
            {key: tensor.detach().contiguous() for key, tensor in tensors.items()}, part / name
        )
        digests[name] = _digest(part / name)
        _fsync(part / name)
    state = {"step": checkpoint.step, "digests": digests, "state": dict(checkpoint.state)}
    (part / STATE).write_text(json.dumps(state), encoding="utf-8")
    _fsync(part / STATE)
    _fsync(part)


def load_newest_checkpoint(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, or None. `say` gets one line for each damaged one."""
    for folder in _folders(root):
        try:
            return _load(folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            say(f"checkpoint {folder.name} is damaged ({first_line}); trying the one before it")
    return None


def _load(folder: Path) -> Checkpoint:
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    for name, digest in state["digests"].items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{name} differs from its digest")
    return Checkpoint(
        step=state["step"],
        weights=load_file(folder / WEIGHTS),
        optimiser=load_file(folder / OPTIMISER),
        state=state["state"],
    )


def _folders(root: Path) -> list[Path]:
    """Newest first."""
    return sorted(root.glob("step-*"), reverse=True)


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
