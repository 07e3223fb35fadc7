"""How an attempt ended, as a small file that outlives every process.

`dvc repro` exits with 255 whatever the stage exited with, so the exit code alone tells nothing.
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from components.contract import Json
from components.errors import ERROR_OF_KIND, StageError

NAME = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    stage: str
    key: str
    kind: str
    """`ok`, or the kind of `components.errors`."""
    exit_code: int
    message: str
    hint: str
    node: str
    attempt: int
    started_at: float
    """Unix seconds."""
    elapsed_s: float
    peak_memory_gib: float
    """Of the pod and all its children together, sampled; 0 if it ended too fast to see."""

    @property
    def ok(self) -> bool:
        return self.kind == "ok"

    def error(self) -> StageError:
        """The typed error to raise for an outcome that is not ok."""
        return ERROR_OF_KIND.get(self.kind, StageError)(self.message, self.hint)


def exit_code_of(kind: str) -> int:
    """What a process exits with that ended so: 0 for `ok`."""
    return 0 if kind == "ok" else ERROR_OF_KIND[kind].exit_code


def write(run_dir: Path, outcome: Outcome) -> None:
    write_json(run_dir / NAME, asdict(outcome))


def write_first(run_dir: Path, outcome: Outcome) -> None:
    """Write it unless there is one: of several ranks that fail, the first says why."""
    part = run_dir / f".{NAME}.first.{os.getpid()}"
    write_json(part, asdict(outcome))
    with suppress(FileExistsError):
        os.link(part, run_dir / NAME)
    part.unlink()


def read(run_dir: Path) -> Outcome | None:
    """None if there is none, or none that is whole."""
    try:
        return Outcome(**json.loads((run_dir / NAME).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def said(outcome: Outcome) -> list[str]:
    """How a stage ended, for whoever reads its output: the error, and what to do next."""
    lines = [f"{outcome.stage}: {outcome.kind} error: {outcome.message}"]
    return [*lines, f"{outcome.stage}: {outcome.hint}"] if outcome.hint else lines


def heard(stage: str, lines: Sequence[str]) -> StageError | None:
    """The error that `said` put among `lines`: where the disk was too full for an outcome, all there is."""
    for index, line in enumerate(lines):
        found = re.fullmatch(rf"{stage}: (\w+) error: (.*)", line)
        if found and found[1] in ERROR_OF_KIND:
            hints = [text for text in lines[index + 1 :] if text.startswith(f"{stage}: ")]
            hint = hints[0].removeprefix(f"{stage}: ") if hints else ""
            return ERROR_OF_KIND[found[1]](found[2], hint)
    return None


def read_json(path: Path) -> Json:
    """What the file holds; None if there is none, or none that is whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write_json(path: Path, value: object) -> None:
    """Whole or not at all: a reader never sees half of it, not even after a power cut."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, sort_keys=True, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if error.filename is None:  # a write that is refused does not say where
            error.filename = str(path)
        raise
