"""`runs/<stage>/<key>`: everything about one attempt, in one folder.

request.json    what is to be done: params, inputs, code; written by launch, read by the pod
.lock           held by whoever works on it; while nobody does and there is no outcome, it was killed
metrics.jsonl   the time series, as it grows
log.txt         what the pod printed
work/           checkpoints and caches; outlives a failure
out/            the output, until DVC has recorded it
reports/        pages and pictures
report.json     the stage's report
outcome.json    how it ended
job.json        of one on a cluster: where its Job is and was
pods/           of one on a cluster: the folders that its pods work in, see tasks/claim.py
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from components.contract import Json
from components.errors import UserError
from components.section import read_yaml
from tasks import outcome
from tasks.config import home_root
from tasks.dag import ARTIFACTS, REPORTS, StageSpec

LATEST = "latest.json"
"""In `runs/<stage>` of the workspace: its newest attempt, see `Latest`."""
NUM_READS = 10
REREAD_S = 0.1


@dataclass(frozen=True)
class RunDir:
    root: Path
    stage: str
    key: str
    place: Path | None = None
    """Where it is worked on, if not in the folder that its key names: see tasks/claim.py."""

    @property
    def path(self) -> Path:
        """In the project that `root` belongs to: what an attempt leaves outlives its workspace."""
        return self.place or home_root(self.root) / "runs" / self.stage / self.key

    @property
    def out(self) -> Path:
        return self.path / "out"

    @property
    def cache(self) -> Path:
        """The stage's, whatever the key."""
        return self.path.parent / "cache"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def reports(self) -> Path:
        return self.path / "reports"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    @property
    def request(self) -> Path:
        return self.path / "request.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def published(self) -> Mapping[Path, Path]:
        """What is published from where: source to target."""
        return {
            self.out: self.root / ARTIFACTS / self.stage,
            self.reports: self.root / REPORTS / self.stage,
            self.report: self.root / REPORTS / f"{self.stage}.json",
        }


def resolved_params(all_params: Mapping[str, Json], spec: StageSpec) -> dict[str, Json]:
    """The stage's part of params.yaml: the keys that dvc.yaml names, dots going down."""
    resolved = {}
    for key in spec.params:
        value: Json = all_params
        for part in key.split("."):
            value = value[part]
        resolved[key] = value
    return resolved


@dataclass(frozen=True)
class Latest:
    """Which attempt a workspace asked for last."""

    key: str
    published: bool = False
    lock_entry: Json = None
    """What dvc.lock said of the stage just before publishing: once it differs, DVC has recorded."""
    recorded_before: bool = False
    """Whether it was computed again although DVC had its output: then the entry need not differ."""


def read_latest(root: Path, stage: str) -> Latest | None:
    try:
        return Latest(**json.loads(_latest(root, stage).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_latest(root: Path, stage: str, latest: Latest) -> None:
    _latest(root, stage).parent.mkdir(parents=True, exist_ok=True)
    outcome.write_json(_latest(root, stage), asdict(latest))


def latest_run(root: Path, stage: str) -> Path | None:
    """The folder of the workspace's newest attempt at a stage; None if there is none."""
    latest = read_latest(root, stage)
    return RunDir(root, stage, latest.key).path if latest else None


def latest_at(root: Path, stage: str) -> int:
    """When that attempt was last asked for or ended, in ns since the epoch; 0 if there is none."""
    try:
        return _latest(root, stage).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _latest(root: Path, stage: str) -> Path:
    return root / "runs" / stage / LATEST


def read_request(run: Path) -> dict[str, Json]:
    """What request.json of the run folder says; empty if there is none, or none that is whole."""
    try:
        request = json.loads((run / "request.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return request if isinstance(request, dict) else {}


def lock_entry(root: Path, stage: str) -> Json:
    """What dvc.lock says of a stage; None if nothing.

    DVC writes the file in place: one that is empty or torn is being written for another stage.
    """
    path = root / "dvc.lock"
    if not path.exists():
        return None
    for _ in range(NUM_READS):
        with suppress(UserError):
            lock = read_yaml(path)
            if lock:
                return lock.get("stages", {}).get(stage)
        time.sleep(REREAD_S)
    return (read_yaml(path) or {}).get("stages", {}).get(stage)


def log_tail(run: Path, num_lines: int = 20) -> str:
    """The last lines of a run's log, for a person."""
    path = run / "log.txt"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-num_lines:])
    except FileNotFoundError:
        return ""


def flatten(value: Json, prefix: str = "") -> dict[str, Json]:
    """Nested keys joined with dots; lists as they are."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Json] = {}
    for name, inner in value.items():
        flat |= flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat
