"""Where a flow run works: the project itself, or a git worktree of its own for other params.

A worktree shares git's objects and DVC's cache with the project, and no lock: runs with different
params go on side by side. When one has ended well it becomes a DVC experiment of the project.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from components.contract import Json
from components.errors import DISK_FAULTS, StageError, UserError, disk_fault
from components.params import load_params
from tasks import outcome
from tasks.config import EXPERIMENTS, home_root
from tasks.locks import held, if_free, locked, this_process
from tasks.publish import is_held, remove
from tasks.run_dir import LATEST, latest_run, read_request

READY = "workspace.json"
"""Below `runs/` of a worktree that is whole: the overrides it was made for."""
KEPT = 4
"""Worktrees that stay when another is made, besides those in which something runs."""


@contextmanager
def opened(
    home: Path, overrides: Mapping[str, Json], say: Callable[[str], object] = print
) -> Iterator[Path]:
    """Hold `home` itself, or the worktree for `overrides` (dotted key to value), made if need be.

    While another flow run holds it, waits and says so. The same overrides of the same project come
    back to the same worktree, so a stopped run goes on there. Raises UserError for an unknown key or
    a value out of its bounds; then nothing is made.
    """
    home = home_root(home)
    root, lock = home, home / "runs" / "flows" / ".lock"
    changed, added = [], []
    if overrides:
        changed = _files(home, "diff", "--name-only", "HEAD")
        added = _files(home, "ls-files", "--others", "--exclude-standard")
        root = home / EXPERIMENTS / _name(home, overrides, [*changed, *added])
        lock = _lock(root)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with held(
        lock, this_process(root), lambda holder: say(f"waiting for the flow run of {holder}")
    ) as descriptor:
        os.set_inheritable(descriptor, True)
        if overrides and not (root / "runs" / READY).exists():
            say(f"making a workspace for the experiment {root.name}")
            _make(home, root, overrides, changed, added)
            remove_old(home, say)
        yield root


def _lock(root: Path) -> Path:
    """Held by the flow run that works in the worktree `root`; not in it, for it may be removed."""
    return root.with_name(f".{root.name}.lock")


def _make(
    home: Path, root: Path, overrides: Mapping[str, Json], changed: list[str], added: list[str]
) -> None:
    if root.exists():  # left half-made by a kill
        shutil.rmtree(root)
    with _git_alone(home):
        run_git(home, "worktree", "prune")
        # Twice: git still has one locked whose making was killed.
        run_git(home, "worktree", "add", "--quiet", "-f", "-f", "--detach", str(root), "HEAD")
    try:
        _take_over(home, root, changed, added)
        override(root / "params.yaml", overrides)
        load_params(root / "params.yaml")
    except BaseException:
        with _git_alone(home):
            _remove(home, root)
        raise
    # What the project has computed already is checked out, not computed again.
    run_dvc(root, "checkout", "--quiet", check=False)
    (root / "runs").mkdir(exist_ok=True)
    outcome.write_json(root / "runs" / READY, dict(overrides))


def remove_old(home: Path, say: Callable[[str], object]) -> None:
    """Remove worktrees in which nothing runs, but for the KEPT that were used last.

    Each holds a copy of all artifacts, and nothing that is not elsewhere: what it computed is in
    DVC's cache and its experiment, its attempts are the project's. It is made again when asked for.
    """
    folder = home / EXPERIMENTS
    roots = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    roots.sort(key=_used_at, reverse=True)
    with _git_alone(home):
        for left_behind in folder.glob(".*.gone"):  # of one that was killed meanwhile
            shutil.rmtree(left_behind)
        for root in roots[KEPT:]:
            with if_free(_lock(root)) as is_free:
                if is_free and not _may_go_on(root):
                    say(f"removing the workspace of {root.name}: {KEPT} newer ones are kept")
                    _remove(home, root)


def _used_at(root: Path) -> float:
    """When a flow run came there last; its lock says who."""
    try:
        return _lock(root).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _may_go_on(root: Path) -> bool:
    """Whether a stage that was begun there still runs: it may outlive its flow, on a cluster for hours."""
    runs = (latest_run(root, latest.parent.name) for latest in root.glob(f"runs/*/{LATEST}"))
    return any(is_held(run) or _has_a_job(run) for run in runs if run is not None)


def _has_a_job(run: Path) -> bool:
    return outcome.read(run) is None and read_request(run).get("launcher") == "kubernetes"


def _remove(home: Path, root: Path) -> None:
    remove(root)
    run_git(home, "worktree", "prune")


def override(path: Path, overrides: Mapping[str, Json]) -> None:
    """Set dotted keys of a YAML file, whose comments and order stay. Raises UserError for a new key."""
    yaml = YAML()
    yaml.width = 10_000
    document = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in overrides.items():
        *folders, last = key.split(".")
        section = document
        for folder in folders:
            section = section.get(folder) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise UserError(f"{key}: no such param", "see params.yaml for the names")
        section[last] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


def save(root: Path) -> str:
    """Keep what the worktree `root` holds as a DVC experiment; return its name."""
    with _git_alone(home_root(root)):
        run_dvc(root, "exp", "save", "--force", "--name", root.name)
    return root.name


def _git_alone(home: Path) -> AbstractContextManager[None]:
    """Worktrees share the repository's references, and of two who write them at once one fails."""
    return locked(home / EXPERIMENTS / ".git.lock")


def _name(home: Path, overrides: Mapping[str, Json], paths: list[str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(overrides), sort_keys=True).encode())
    digest.update(run_git(home, "rev-parse", "HEAD").encode())
    for path in sorted(paths):
        digest.update(path.encode())
        if (home / path).is_file():
            digest.update((home / path).read_bytes())
    return f"exp-{digest.hexdigest()[:8]}"


def _take_over(home: Path, root: Path, changed: list[str], added: list[str]) -> None:
    """Bring what git has not recorded yet, as `dvc exp run` does; and DVC's own settings."""
    for path in [*changed, *added]:
        (root / path).unlink(missing_ok=True)
        if (home / path).is_file():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(home / path, root / path)
    share_settings(home, root)


def share_settings(home: Path, root: Path) -> None:
    """Give another checkout of `home` its remotes, and its cache in place of one of its own."""
    local = home / ".dvc" / "config.local"
    if local.exists():
        shutil.copy2(local, root / ".dvc" / "config.local")
    run_dvc(root, "cache", "dir", "--local", run_dvc(home, "cache", "dir").strip())


def _files(home: Path, *arguments: str) -> list[str]:
    return [path for path in run_git(home, *arguments, "-z").split("\0") if path]


def run_git(root: Path, *arguments: str) -> str:
    return _run(root, ["git", *arguments])


def run_dvc(root: Path, *arguments: str, check: bool = True) -> str:
    return _run(root, [sys.executable, "-m", "tasks.dvc_files", *arguments], check=check)


def _run(root: Path, command: list[str], *, check: bool = True) -> str:
    """What it prints. It may outlive us, if we are killed, and holds `opened`'s lock as long."""
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False,
        close_fds=False,  # it keeps the workspace's lock open
    )  # fmt: skip
    if check and done.returncode:
        words = " ".join(command[-4:])
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line for line in lines if line.startswith(("ERROR:", "fatal:"))] or lines[-1:]
        for number in DISK_FAULTS:  # git says it without the number
            if errors and os.strerror(number) in errors[-1]:
                raise disk_fault(number, root)
        raise StageError(f"{words}: {errors[-1] if errors else done.returncode}", f"in {root}")
    return done.stdout
