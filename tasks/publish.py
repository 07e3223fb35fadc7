"""Publishing: what a stage wrote becomes visible whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from components.errors import disk_faults_typed
from tasks import locks, outcome

LOCK = ".lock"
"""In a run's folder: held by whoever works on that attempt."""
KEEP_UNFINISHED = 3
"""Attempts of a stage that keep their checkpoints, besides those that run."""
NUM_CACHED = 16
"""Files that a stage's cache keeps: dpo's are two a run, a few hundred KB each."""


def publish_tree(source: Path, target: Path) -> None:
    """Make `target` a tree of hard links to `source`, replacing what was there, by one rename.

    Links, so that the run keeps its output until DVC has recorded it: a kill in between costs
    nothing. Where links are impossible (another file system) the files are copied.
    """
    source = source.resolve()  # of a run whose pods work in folders of their own
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in target.parent.glob(f".{target.name}.[0-9]*"):
        remove(left_behind)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with disk_faults_typed(target):
        try:
            if source.is_dir():
                shutil.copytree(source, part, copy_function=_link_or_copy)
            else:
                _link_or_copy(str(source), str(part))
        except OSError:
            remove(part)
            raise
    if target.is_dir():  # a folder is replaced by two renames, so that nobody sees half of one
        old = target.with_name(f"{part.name}.old")
        target.rename(old)
        part.rename(target)
        remove(old)
    else:
        part.replace(target)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def remove(path: Path) -> None:
    """Remove a file or a tree, at one moment: after a kill it is whole, or no longer there."""
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)  # a kill left it
    if path.is_dir() and not path.is_symlink():
        path.rename(gone)
        shutil.rmtree(gone)
    else:
        path.unlink(missing_ok=True)


def prune(stage_runs: Path, keep_key: str, say: Callable[[str], object]) -> None:
    """Drop outputs and checkpoints that nobody needs; figures, logs and outcomes stay.

    A finished attempt's are in DVC's cache. Of unfinished ones that can be gone on with the newest
    KEEP_UNFINISHED are kept, and `say` hears of each that is not. What runs at present, in another
    workspace, is left alone and does not count.
    """
    others = [path for path in stage_runs.iterdir() if path.is_dir() and path.name != keep_key]
    unfinished = []
    for run in others:
        last = outcome.read(run)
        if _has_files(run / "work") and not (last and last.ok):
            unfinished += [] if is_held(run) else [run]
        elif last:
            _drop(run)
    unfinished.sort(key=lambda run: (run / "work").stat().st_mtime_ns, reverse=True)
    for run in unfinished[KEEP_UNFINISHED:]:
        if _drop(run):
            say(
                f"{stage_runs.name}: attempt {run.name} was not finished, and what it would go on "
                f"from is dropped: only the {KEEP_UNFINISHED} newest of such keep it"
            )


def _has_files(folder: Path) -> bool:
    return any(files for _, _, files in os.walk(folder))


def is_held(run: Path) -> bool:
    """Whether anyone works on the attempt in `run`; one without a lock file was never begun."""
    try:
        return locks.is_held(run / LOCK)
    except FileNotFoundError:
        return False


def _drop(run: Path) -> bool:
    """Whether nobody works on it, so that it could be dropped."""
    with locks.if_free(run / LOCK) as is_free:
        for name in ("out", "work", "pods") if is_free else ():
            remove(run / name)
    return is_free


def prune_cache(cache: Path) -> None:
    """Keep the files that were written or read last; one that another run took away is no error."""
    if cache.is_dir():
        used_at = {path: _changed_at(path) for path in cache.iterdir()}
        for path in sorted(used_at, key=lambda path: used_at[path])[:-NUM_CACHED]:
            path.unlink(missing_ok=True)


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
