"""Watching the processes of a test's project."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_for(condition: Callable[[], Any], timeout_s: float = 180) -> Any:
    """What `condition` gives once it is true; fails if that takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s")


def started_run(runs: Path) -> Path | None:
    """The run folder whose stage has begun and not ended."""
    for started in runs.glob("*/work/started"):
        run_dir = started.parents[1]
        if not (run_dir / "outcome.json").exists():
            return run_dir
    return None


def pods_of(folder: Path) -> list[int]:
    """Processes that run a stage of the project in `folder`."""
    return [*working_in(folder, "-m tasks.pod")]


def working_in(folder: Path, word: str = "") -> dict[int, str]:
    """PID to command line of the processes that work in `folder` and have `word` on it."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if word in command and (entry / "cwd").resolve() == folder.resolve():
                found[int(entry.name)] = command
        except OSError:
            continue
    return found
