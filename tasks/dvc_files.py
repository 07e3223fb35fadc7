"""The files that DVC writes in place, and that a kill or a full disk would leave empty or torn."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

CONFLICT = "<<<<<<< "
"""How git begins what it could not merge: a person's to settle."""


def write_dvc_lock_whole(root: Path) -> None:
    """Let the DVC of this process change dvc.lock by rename, so that nobody ever sees a half of it."""
    from dvc import dvcfile

    change_in_place = dvcfile.modify_yaml

    @contextmanager
    def change_whole(path: str, fs: Any = None) -> Iterator[Any]:
        copy = root / ".dvc" / "tmp" / f"{Path(path).name}.{os.getpid()}"
        try:
            if os.path.exists(path):
                shutil.copy(path, copy)
            with change_in_place(copy, fs) as data:
                yield data
            os.replace(copy, os.path.realpath(path))
        finally:
            copy.unlink(missing_ok=True)

    dvcfile.modify_yaml = change_whole


def repair_dvc_files(root: Path) -> None:
    """Set aside what a killed `dvc` left half-written: its own lock file, and dvc.lock.

    Locks that are whole DVC judges itself, by PID. Without dvc.lock it takes every output from its
    cache again. Each is looked at under the lock that DVC holds while it writes it, so that a file
    that is being written is not taken for a broken one.
    """
    own = root / ".dvc" / "tmp"
    _set_broken_aside(own / "rwlock", own / "rwlock.lock", _is_rwlock)
    _set_broken_aside(root / "dvc.lock", own / "lock", _is_dvc_lock)


def _set_broken_aside(path: Path, guard: Path, is_whole: Callable[[Path], bool]) -> None:
    from zc.lockfile import LockError, LockFile

    with suppress(FileNotFoundError, LockError):  # gone, or being written
        if is_whole(path):
            return
        with closing(LockFile(str(guard))):
            if not is_whole(path):
                os.replace(path, guard.with_name(f"{path.name}.broken"))


def _is_rwlock(path: Path) -> bool:
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, Invalid):
        return False
    return True


def _is_dvc_lock(path: Path) -> bool:
    """Whether DVC could read it, or a person must see it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        lock = YAML(typ="safe").load(text)
    except YAMLError:
        return CONFLICT in text
    return isinstance(lock, dict) and "schema" in lock
