"""`runs/flows/<id>.json`: what a flow run did, on disk before MLflow or anyone else hears of it.

The flow's process holds a lock on `<id>.lock` beside it to its end, however it ends: so it is known
on every machine that shares the folder, and has a flock that is shared too, whether it is there.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import InfraError, StageError
from tasks import outcome
from tasks.locks import is_held
from tasks.process import is_running, started_ticks

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

LOCK = ".lock"
UPSTREAM = "upstream"
"""The kind of a stage that was not started, because one that it depends on failed."""


@dataclass
class FlowRecord:
    id: str
    started_at: float
    node: str
    """The machine of the flow's process."""
    pid: int
    """The flow's process: a record without an end whose process is gone was killed."""
    ticks: int
    """When that process was started: its PID alone may be another's by now."""
    stages: list[str] = field(default_factory=list)
    workspace: str = ""
    """Where the stages ran: the project, or an experiment's worktree; empty before it is known."""
    git_commit: str = ""
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    """`name`, `message` and error `kind` of each stage's last state, once known."""
    ended_at: float | None = None
    state: str = "RUNNING"
    flow: str = "pipeline"
    """`promote`, `rollback`; or `pipeline` for what runs stages, and alone has a run in MLflow."""
    told: str = ""
    """The Prefect server that was told that the process is gone, or knew better; empty: none was."""

    def take(self, states: "Mapping[str, State]") -> None:
        """Keep Prefect's final states."""
        for name, state in states.items():
            kind = "ok" if state.is_completed() else UPSTREAM
            if state.is_cancelled() or state.is_crashed():
                kind = InfraError.kind
            elif state.is_failed():
                error = state.result(raise_on_failure=False)
                kind = error.kind if isinstance(error, StageError) else StageError.kind
            self.states[name] = {
                "name": state.name or "",
                "message": state.message or "",
                "kind": kind,
            }
        failed = [n for n, s in self.states.items() if s["kind"] not in ("ok", UPSTREAM)]
        for end in self.states.values():
            if end["kind"] == UPSTREAM:  # Prefect's own message names a run by its id
                end |= {"name": "NotRun", "message": f"because of {', '.join(failed)}"}
        if any(state["kind"] != "ok" for state in self.states.values()):
            self.state = "FAILED"


@contextmanager
def recorded(home: Path, flow_run: str, flow: str = "pipeline") -> Iterator[FlowRecord]:
    """Keep the record on disk while the body runs; one with stages calls `place` once it knows where."""
    record = FlowRecord(flow_run, time.time(), *_this_process(), flow=flow)
    path = record_path(home, flow_run)
    path.parent.mkdir(parents=True, exist_ok=True)
    _hold(path)
    outcome.write_json(path, vars(record))
    try:
        yield record
        if record.state == "RUNNING":
            record.state = "FINISHED"
    except BaseException:
        record.state = "FAILED"
        raise
    finally:
        record.ended_at = time.time()
        outcome.write_json(path, vars(record))


def place(home: Path, record: FlowRecord, workspace: Path, stages: list[str]) -> None:
    """Note where the flow works on what, and start a process beside it that mirrors to MLflow."""
    record.workspace, record.stages = str(workspace), stages
    record.git_commit = git_commit(workspace)
    outcome.write_json(record_path(home, record.id), vars(record))
    start_mirror(home, record.id)  # it sees the end in the record, sends what is left, and goes


def record_path(home: Path, flow_run: str) -> Path:
    return home / "runs" / "flows" / f"{flow_run}.json"


def read(path: Path) -> FlowRecord | None:
    """The record at `path`; None if there is none, or none that is whole."""
    try:
        return FlowRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def has_ended(path: Path) -> bool:
    """Whether the flow of the record at `path` said that it ended, or is gone without a word."""
    record = read(path)
    return record is None or is_over(path, record)


def is_over(path: Path, record: FlowRecord) -> bool:
    """Whether the flow said that it ended, or its process is gone."""
    return record.ended_at is not None or is_gone(path, record)


def is_gone(path: Path, record: FlowRecord) -> bool:
    """Whether the process of the record at `path` is no more; one that is stopped is still there."""
    if record.told:
        return True
    if record.node == os.uname().nodename:
        return not is_running(record.pid, record.ticks)
    return _is_released(path.with_suffix(LOCK))


def tell(path: Path, record: FlowRecord, server: str) -> None:
    """Note that Prefect's `server` knows of the end of a process that is gone."""
    changed_at = path.stat().st_mtime_ns  # it is taken for the end of one that said none
    record.told = server
    outcome.write_json(path, vars(record))
    os.utime(path, ns=(changed_at, changed_at))
    path.with_suffix(LOCK).unlink(missing_ok=True)


def _hold(path: Path) -> None:
    """Take the lock of the record at `path`, until this process ends; what it starts does not hold it."""
    lock = os.open(path.with_suffix(LOCK), os.O_WRONLY | os.O_CREAT)  # never closed
    fcntl.flock(lock, fcntl.LOCK_EX)


def _is_released(lock: Path) -> bool:
    """Whether nobody holds the lock; one that is not there says nothing."""
    try:
        return not is_held(lock)
    except OSError:
        return False


def record_paths(home: Path) -> list[Path]:
    """Of all flow runs; a file's stem is the run's id."""
    paths = (home / "runs" / "flows").glob("*.json")
    return sorted(path for path in paths if not path.name.endswith(".mirror.json"))


def own(home: Path) -> FlowRecord | None:
    """The newest record of this very process."""
    for path in sorted(record_paths(home), key=lambda path: path.stat().st_mtime, reverse=True):
        record = read(path)
        if record is not None and (record.node, record.pid, record.ticks) == _this_process():
            return record
    return None


def _this_process() -> tuple[str, int, int]:
    """Node, PID and ticks."""
    pid = os.getpid()
    return os.uname().nodename, pid, started_ticks(pid) or 0


def start_mirror(root: Path, flow_run: str = "") -> None:
    """Start `python -m tasks.tracking` beside us; it outlives us by the time it needs to finish.

    Where nothing can be written it is left out: the next one catches up.
    """
    follow = ["--follow", flow_run] if flow_run else []
    with suppress(OSError):
        (root / "runs").mkdir(exist_ok=True)
        with (root / "runs" / "mirror.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "tasks.tracking", *follow],
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def git_commit(root: Path) -> str:
    """The commit, with `-dirty` if tracked files differ from it; `unknown` outside git."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}-dirty" if dirty else commit


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()
