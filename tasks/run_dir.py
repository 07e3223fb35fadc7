"""`runs/<stage>/<key>`: everything about one attempt, in one folder.

request.json    what is to be done: params, inputs, code; written by launch, read by the pod
metrics.jsonl   the time series, as it grows
log.txt         what the pod printed
work/           checkpoints and caches; outlives a failure
out/            the output, until DVC has recorded it
reports/        pages and pictures
report.json     the stage's report
outcome.json    how it ended
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.contract import Json
from tasks.dag import ARTIFACTS, REPORTS, StageSpec


@dataclass(frozen=True)
class RunDir:
    root: Path
    stage: str
    key: str

    @property
    def path(self) -> Path:
        return self.root / "runs" / self.stage / self.key

    @property
    def out(self) -> Path:
        return self.path / "out"

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
