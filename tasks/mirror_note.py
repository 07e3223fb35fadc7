"""`mirror.json`: how far one run is mirrored to MLflow, and when there is nothing more to send.

A path here is a run folder, or a flow run's record, whose note lies beside it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tasks import outcome
from tasks.mlflow_run import Store

Versions = dict[str, tuple[int, int]]
"""By the file's name, when it was changed (ns) and its inode; zeros if it is not there."""
Sent = dict[Store, dict[Path, Versions]]
"""What was sent whole to which store, with its files' versions then."""


@dataclass
class Progress:
    """How far one run folder is mirrored, and where."""

    tracking_uri: str = ""
    experiment_id: str = ""
    experiment_created_at: int = 0
    begun_at: float = 0.0
    """Of the request that the run tells; 0 for none."""
    run_id: str = ""
    params_sent: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    """What was sent of who worked on it."""
    offset: int = 0
    """Bytes of metrics.jsonl sent."""
    status: str = "RUNNING"
    ended_at: float = 0.0
    """The end that was sent; 0 for none."""
    lock_entry: bool = False
    """Whether DVC's record of the output was sent, or will never come."""
    deleted: bool = False
    """Whether someone deleted the run in MLflow."""


def note_of(path: Path) -> Path:
    return path.with_suffix(".mirror.json") if path.suffix == ".json" else path / "mirror.json"


def versions(path: Path) -> Versions:
    """Of the files that decide whether there is anything to send."""
    is_flow = path.suffix == ".json"
    files = [path] if is_flow else [path / "request.json", path / outcome.NAME]
    found: Versions = {}
    for file in (*files, note_of(path)):
        found |= version(file)
    return found


def version(file: Path) -> Versions:
    try:
        found = file.stat()
    except FileNotFoundError:
        return {file.name: (0, 0)}
    return {file.name: (found.st_mtime_ns, found.st_ino)}


def is_whole(path: Path) -> bool:
    """Whether nothing can follow unless a file changes: neither DVC's record nor a parent."""
    progress = parse_progress(note_of(path))
    if progress.deleted or path.suffix == ".json":
        return progress.deleted or progress.ended_at > 0
    has_parent = "mlflow.parentRunId" in progress.tags or "prefect.flow_run_id" not in progress.tags
    return has_parent and (progress.status == "FAILED" or progress.lock_entry)


def read_progress(note: Path, store: Store, begun_at: float) -> Progress:
    """What was sent there of what began then; nothing, if the note is of another store or story."""
    here = Progress(**asdict(store), begun_at=begun_at)
    found = parse_progress(note)
    same = (
        found.tracking_uri == here.tracking_uri
        and found.experiment_id == here.experiment_id
        and found.experiment_created_at == here.experiment_created_at
        and found.begun_at == here.begun_at
    )
    return found if same else here


def parse_progress(note: Path) -> Progress:
    try:
        return Progress(**json.loads(note.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return Progress()
