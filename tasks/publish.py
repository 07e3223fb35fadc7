"""Publishing: what a stage wrote becomes visible whole or not at all."""

import os
import shutil
from pathlib import Path

NUM_CACHED = 16
"""Files that a stage's cache keeps: dpo's are two a run, a few hundred KB each."""


def publish_tree(source: Path, target: Path) -> None:
    """Make `target` a tree of hard links to `source`, replacing what was there, by one rename.

    Links, so that the run keeps its output until DVC has recorded it: a kill in between costs
    nothing. Where links are impossible (another file system) the files are copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    remove(part)
    if source.is_dir():
        shutil.copytree(source, part, copy_function=_link_or_copy)
    else:
        _link_or_copy(str(source), str(part))
    remove(target)
    part.rename(target)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def prune(stage_runs: Path, keep_key: str) -> None:
    """Drop outputs and checkpoints of other attempts; their figures, logs and outcomes stay."""
    for run_dir in stage_runs.iterdir():
        if run_dir.is_dir() and run_dir.name != keep_key:
            remove(run_dir / "out")
            remove(run_dir / "work")


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
