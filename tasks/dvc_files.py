"""The files that DVC writes in place, and that a kill or a full disk would leave empty or torn.

`python -m tasks.dvc_files ARGUMENTS` is `dvc ARGUMENTS`, with dvc.lock written whole, and with the
remote that the environment names.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.config import DVC_REMOTE

CONFLICT = "<<<<<<< "
"""How git begins what it could not merge: a person's to settle."""


def run_dvc(arguments: Sequence[str]) -> int:
    """`dvc ARGUMENTS` in this process, from the project's root; the code that it ends with."""
    from dvc.cli import main as dvc

    _write_dvc_lock_whole(Path.cwd())
    url = os.environ.get(DVC_REMOTE)
    if url:
        _use_remote(url)
    return int(dvc(list(arguments)))


def _write_dvc_lock_whole(root: Path) -> None:
    """Let the DVC of this process change dvc.lock by rename, so that nobody ever sees a half of it."""
    from dvc import dvcfile

    change_in_place = dvcfile.modify_yaml

    @contextmanager
    def change_whole(path: str, fs: Any = None) -> Iterator[Any]:
        copy = root / ".dvc" / "tmp" / f"{Path(path).name}.{os.getpid()}"
        copy.unlink(missing_ok=True)  # of a process before this one with its number
        try:
            if os.path.exists(path):
                shutil.copy(path, copy)
            with change_in_place(copy, fs) as data:
                yield data
            os.replace(copy, os.path.realpath(path))
        finally:
            copy.unlink(missing_ok=True)

    dvcfile.modify_yaml = change_whole


def _use_remote(url: str) -> None:
    """Let the DVC of this process take `url` for its default remote, whatever its files say.

    DVC itself reads remotes from files alone, and a file may be committed.
    """
    from dvc.config import Config, merge

    load = Config.load_config_to_level

    def load_with_remote(self: Config, level: str | None = None) -> dict[str, Any]:
        loaded: dict[str, Any] = load(self, level)
        if level is None:  # all levels together; a single one is loaded to be changed
            merge(
                loaded, {"core": {"remote": "environment"}, "remote": {"environment": {"url": url}}}
            )
        return loaded

    Config.load_config_to_level = load_with_remote


def repair_dvc_files(root: Path, say: Callable[[str], object]) -> None:
    """Set aside what a killed `dvc` left half-written: its own lock file, and dvc.lock.

    Locks that are whole DVC judges itself, by PID. In place of a broken dvc.lock git's is taken; what
    that does not tell of, DVC takes from its cache of runs. Each file is looked at under the lock that
    DVC holds while it writes it, so that one that is being written is not taken for a broken one.
    """
    own = root / ".dvc" / "tmp"
    _set_broken_aside(own / "rwlock", own / "rwlock.lock", _is_rwlock)
    lock = root / "dvc.lock"
    aside = _set_broken_aside(lock, own / "lock", _is_dvc_lock)
    if aside is not None:
        is_gits = not lock.exists() and _take_gits(root, lock, own)
        instead = "git's is taken" if is_gits else "DVC makes it again from its cache"
        say(f"dvc.lock was cut short: {instead}; it lies in {aside.relative_to(root)}")


def _take_gits(root: Path, lock: Path, own: Path) -> bool:
    command = ["git", "show", f"HEAD:./{lock.name}"]
    shown = subprocess.run(command, cwd=root, capture_output=True, check=False)
    copy = own / f"{lock.name}.{os.getpid()}"
    copy.write_bytes(shown.stdout)
    if shown.returncode or not _is_dvc_lock(copy):
        copy.unlink()
        return False
    os.replace(copy, lock)
    return True


def _set_broken_aside(path: Path, guard: Path, is_whole: Callable[[Path], bool]) -> Path | None:
    """Where the file is now; None if it is whole, absent, or being written."""
    from zc.lockfile import LockError, LockFile

    with suppress(FileNotFoundError, LockError):
        if is_whole(path):
            return None
        with closing(LockFile(str(guard))):
            if not is_whole(path):
                aside = guard.with_name(f"{path.name}.broken")
                os.replace(path, aside)
                return aside
    return None


def _is_rwlock(path: Path) -> bool:
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, Invalid):
        return False
    return True


def _is_dvc_lock(path: Path) -> bool:
    """Whether DVC can read it, or a person must see it."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from voluptuous import Invalid

    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))
    except (YAMLError, Invalid):
        return CONFLICT in text
    return True


if __name__ == "__main__":
    sys.exit(run_dvc(sys.argv[1:]))
