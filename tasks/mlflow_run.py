"""What MLflow is told of one run folder. Each call may be repeated after a kill and changes nothing then."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contract import Json
from components.errors import UserError
from tasks import config
from tasks.outcome import Outcome
from tasks.run_dir import flatten, lock_entry, read_latest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "headrace"
BATCH = 1000
"""MLflow's own limit of metrics in one call."""
PARAM_BATCH = 100
"""And of params, and of tags."""


@dataclass(frozen=True)
class Store:
    """Which MLflow it is: a database that was wiped is another one, though its address is the same."""

    tracking_uri: str
    """Without user and password."""
    experiment_id: str
    experiment_created_at: int
    """In ms since the epoch."""


def open_store(client: "MlflowClient", root: Path) -> Store:
    """The store that `client` talks to, with the experiment in it; made if it is not there.

    Raises MlflowException if MLflow is away, and UserError if someone deleted the experiment.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            client.create_experiment(EXPERIMENT, config.artifact_location(root))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # someone else was faster
                raise
        found = client.get_experiment_by_name(EXPERIMENT)
    if found is None or found.lifecycle_stage == "deleted":
        raise UserError(
            f"MLflow's experiment {EXPERIMENT} is deleted", "`mlflow experiments restore` it"
        )
    return Store(
        config.without_password(client.tracking_uri),
        str(found.experiment_id),
        int(found.creation_time or 0),
    )


def find_or_create(
    client: "MlflowClient", experiment_id: str, name: str, started_at: float, mark: dict[str, str]
) -> str:
    """The id of the run that has all tags of `mark`; made with them if it is not there.

    So a kill before anyone noted the id gives no second run.
    """
    text = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in mark.items())
    found = client.search_runs([experiment_id], text, max_results=1)
    if found:
        return str(found[0].info.run_id)
    run = client.create_run(
        experiment_id, round(started_at * 1000), mark | {"mlflow.runName": name}, name
    )
    return str(run.info.run_id)


def is_gone(client: "MlflowClient", run_id: str) -> bool:
    """Whether someone deleted the run. Raises MlflowException if MLflow is away."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "deleted")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return True


def send_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    sent = [RunTag(name, value[:5000]) for name, value in tags.items()]
    for start in range(0, len(sent), PARAM_BATCH):
        client.log_batch(run_id, tags=sent[start : start + PARAM_BATCH])


def send_params(client: "MlflowClient", run_id: str, params: Mapping[str, Json]) -> None:
    from mlflow.entities import Param

    sent = [Param(name, str(value)[:6000]) for name, value in flatten(params).items()]
    for start in range(0, len(sent), PARAM_BATCH):
        client.log_batch(run_id, params=sent[start : start + PARAM_BATCH])


def send_metrics(client: "MlflowClient", run_id: str, path: Path, offset: int) -> int:
    """Send the whole lines after `offset` (bytes); return where the next ones start."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            new = file.read()
    except FileNotFoundError:
        return offset
    new = new[: new.rfind(b"\n") + 1]
    _send_points(client, run_id, [point for line in new.splitlines() for point in _points(line)])
    return offset + len(new)


def _points(line: bytes) -> "list[Metric]":
    """The figures of a line of metrics.jsonl; none of one that a kill cut off."""
    from mlflow.entities import Metric

    try:
        entry = json.loads(line)
        return [
            Metric(_metric_name(name), float(value), round(entry["at"] * 1000), entry["step"])
            for name, value in entry.get("metrics", {}).items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _send_points(client: "MlflowClient", run_id: str, points: "Sequence[Metric]") -> None:
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])


def send_end(
    client: "MlflowClient", run_id: str, run_dir: Path, ended: Outcome, ended_at: float
) -> None:
    """Figures, report, pages and log of an attempt that ended, and how it ended."""
    from mlflow.entities import Metric

    at_ms = round(ended_at * 1000)
    points = [
        Metric("stage/elapsed_s", ended.elapsed_s, at_ms, 0),
        Metric("stage/peak_memory_gib", ended.peak_memory_gib, at_ms, 0),
    ]
    report = run_dir / "report.json"
    if report.exists():
        points += [
            Metric(f"report/{_metric_name(name)}", float(value), at_ms, 0)
            for name, value in _figures(report).items()
        ]
        client.log_artifact(run_id, str(report))
    _send_points(client, run_id, points)
    if (run_dir / "reports").is_dir() and any((run_dir / "reports").iterdir()):
        client.log_artifacts(run_id, str(run_dir / "reports"), "reports")
    if (run_dir / "log.txt").exists():
        client.log_artifact(run_id, str(run_dir / "log.txt"))
    said = {"outcome": ended.kind, "message": ended.message, "hint": ended.hint, "node": ended.node}
    # Also the empty ones: an attempt that failed before has left its own.
    send_tags(client, run_id, {f"headrace.{name}": value for name, value in said.items()})
    client.set_terminated(run_id, "FINISHED" if ended.ok else "FAILED", at_ms)


def send_lock_entry(client: "MlflowClient", run_id: str, request: Mapping[str, Any]) -> bool:
    """Tag the run with what dvc.lock says of its output; False if DVC has not recorded it yet."""
    stage, workspace = request["stage"], Path(request["workspace"])
    latest = read_latest(workspace, stage)
    if latest is None or latest.key != request["key"]:
        return True  # a later attempt took its place, or the experiment's workspace is gone
    entry = lock_entry(workspace, stage)
    recorded = latest.recorded_before or entry != latest.lock_entry
    if not latest.published or not recorded or entry is None:
        return False
    outs = {out["path"]: out.get("md5", "") for out in entry.get("outs", [])}
    send_tags(client, run_id, {f"dvc.{p.replace('/', '.')}": md5 for p, md5 in outs.items()})
    return True


def _figures(report: Path) -> dict[str, float]:
    """The numbers of a report.json; none of one that is not whole."""
    try:
        numbers = flatten(json.loads(report.read_text(encoding="utf-8")))
    except ValueError:
        return {}
    numbers.pop("", None)  # the whole file is one value
    return {name: float(v) for name, v in numbers.items() if isinstance(v, bool | int | float)}


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/`; anything else becomes `_`."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)
