"""Mirrors `runs/` to MLflow: one parent run per flow run, one run per executed stage.

The files are the truth and the mirror only reads them, so MLflow may be down, slow or wiped:
whatever it has not taken is sent the next time. How far each run is mirrored is in its
`mirror.json`; a kill between a send and that note costs a point sent twice, never one lost.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import config, outcome
from tasks.flow_record import has_ended
from tasks.run_dir import flatten, lock_entry, read_latest

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "headrace"
BATCH = 1000
"""MLflow's own limit of metrics in one call."""


@dataclass
class Progress:
    """How far one run folder is mirrored."""

    run_id: str = ""
    experiment_id: str = ""
    offset: int = 0
    """Bytes of metrics.jsonl sent."""
    ended_at: float = 0.0
    """The outcome that was sent, by its end; 0 for none."""
    lock_entry: bool = False


def mirror_all(client: "MlflowClient", root: Path) -> int:
    """Send what is new in every run folder; return how many runs are not finished yet."""
    experiment_id = _experiment(client)
    num_open = 0
    for record in sorted((root / "runs" / "flows").glob("*.json")):
        if not record.name.endswith(".mirror.json"):
            num_open += not _mirror_flow(client, experiment_id, record)
    for request in sorted((root / "runs").glob("*/*/request.json")):
        num_open += not _mirror_stage(client, experiment_id, root, request.parent)
    return num_open


def _experiment(client: "MlflowClient") -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(EXPERIMENT, config.artifact_location(Path.cwd())))
    except MlflowException:  # someone else was faster
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise
        return str(found.experiment_id)


def _mirror_flow(client: "MlflowClient", experiment_id: str, path: Path) -> bool:
    record = json.loads(path.read_text(encoding="utf-8"))
    note = path.with_suffix(".mirror.json")
    progress = _read_progress(note)
    if progress.ended_at:
        return True
    if not progress.run_id:
        progress.run_id = _create_run(
            client, experiment_id, f"pipeline {record['id'][:8]}", record["started_at"],
            {"headrace.flow_run": record["id"], "headrace.kind": "flow",
             "headrace.git_commit": record["git_commit"],
             "prefect.flow_run_id": record["id"], "headrace.stages": ",".join(record["stages"])},
        )  # fmt: skip
        progress.experiment_id = experiment_id
        outcome.write_json(note, asdict(progress))
    if not has_ended(path):
        return False
    for stage, state in record["states"].items():
        client.set_tag(progress.run_id, f"headrace.state.{stage}", state["name"])
    killed = record["ended_at"] is None
    ended_at = path.stat().st_mtime if killed else record["ended_at"]
    status = "KILLED" if killed else record["state"]
    client.set_terminated(progress.run_id, status, round(ended_at * 1000))
    progress.ended_at = ended_at
    outcome.write_json(note, asdict(progress))
    return True


def _mirror_stage(client: "MlflowClient", experiment_id: str, root: Path, run_dir: Path) -> bool:
    note = run_dir / "mirror.json"
    progress = _read_progress(note)
    ended = outcome.read(run_dir)
    ended_at = ended.started_at + ended.elapsed_s if ended else 0.0
    if progress.ended_at and progress.ended_at == ended_at and progress.lock_entry:
        return True
    request = json.loads((run_dir / "request.json").read_text(encoding="utf-8"))
    if not progress.run_id:
        progress.run_id = _start_stage_run(client, experiment_id, root, request)
        progress.experiment_id = experiment_id
        outcome.write_json(note, asdict(progress))
    progress.offset = _send_metrics(
        client, progress.run_id, run_dir / "metrics.jsonl", progress.offset
    )
    if ended is not None and progress.ended_at != ended_at:
        _send_end(client, progress.run_id, run_dir, ended, ended_at)
        progress.ended_at = ended_at
    if ended is not None and not progress.lock_entry:
        progress.lock_entry = not ended.ok or _send_lock_entry(client, progress.run_id, request)
    outcome.write_json(note, asdict(progress))
    return bool(progress.ended_at and progress.lock_entry)


def _start_stage_run(
    client: "MlflowClient", experiment_id: str, root: Path, request: dict[str, Any]
) -> str:
    tags = {
        "headrace.kind": "stage",
        "headrace.stage": request["stage"],
        "headrace.stage_key": request["key"],
        "headrace.git_commit": request["git_commit"],
        "headrace.attempt": str(request["attempt"]),
    }
    if request["flow_run"]:
        tags["prefect.flow_run_id"] = request["flow_run"]
        parent = root / "runs" / "flows" / f"{request['flow_run']}.mirror.json"
        parent_run = _read_progress(parent).run_id
        if parent_run:
            tags["mlflow.parentRunId"] = parent_run
    run_id = _create_run(client, experiment_id, request["stage"], request["requested_at"], tags)
    from mlflow.entities import Param

    params = [Param(name, str(value)[:6000]) for name, value in flatten(request["params"]).items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    return run_id


def _send_metrics(client: "MlflowClient", run_id: str, path: Path, offset: int) -> int:
    """Send the whole lines after `offset`; return where the next ones start."""
    from mlflow.entities import Metric

    try:
        with path.open("rb") as file:
            file.seek(offset)
            new = file.read()
    except FileNotFoundError:
        return offset
    new = new[: new.rfind(b"\n") + 1]
    metrics = []
    for line in new.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # a kill inside a write left half a line
            continue
        for name, value in entry.get("metrics", {}).items():
            metrics.append(Metric(name, float(value), round(entry["at"] * 1000), entry["step"]))
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    return offset + len(new)


def _send_end(
    client: "MlflowClient", run_id: str, run_dir: Path, ended: outcome.Outcome, ended_at: float
) -> None:
    from mlflow.entities import Metric, RunTag

    at_ms = round(ended_at * 1000)
    metrics = [
        Metric("stage/elapsed_s", ended.elapsed_s, at_ms, 0),
        Metric("stage/peak_memory_gib", ended.peak_memory_gib, at_ms, 0),
    ]
    report = run_dir / "report.json"
    if report.exists():
        numbers = flatten(json.loads(report.read_text(encoding="utf-8")))
        metrics += [
            Metric(f"report/{_metric_name(name)}", float(value), at_ms, 0)
            for name, value in numbers.items()
            if isinstance(value, bool | int | float)
        ]
        client.log_artifact(run_id, str(report))
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    if (run_dir / "reports").is_dir() and any((run_dir / "reports").iterdir()):
        client.log_artifacts(run_id, str(run_dir / "reports"), "reports")
    if (run_dir / "log.txt").exists():
        client.log_artifact(run_id, str(run_dir / "log.txt"))
    tags = {"outcome": ended.kind, "message": ended.message, "hint": ended.hint, "node": ended.node}
    client.log_batch(
        run_id,
        tags=[RunTag(f"headrace.{name}", value[:5000]) for name, value in tags.items() if value],
    )
    client.set_terminated(run_id, "FINISHED" if ended.ok else "FAILED", at_ms)


def _send_lock_entry(client: "MlflowClient", run_id: str, request: dict[str, Any]) -> bool:
    """Tag the run with what dvc.lock says of its output; False if DVC has not recorded it yet."""
    stage, workspace = request["stage"], Path(request["workspace"])
    latest = read_latest(workspace, stage)
    if latest is None or latest.key != request["key"]:
        return True  # a later attempt took its place, or the experiment's workspace is gone
    entry = lock_entry(workspace, stage)
    recorded = latest.recorded_before or entry != latest.lock_entry
    if not latest.published or not recorded or entry is None:
        return False
    for out in entry.get("outs", []):
        client.set_tag(run_id, f"dvc.{out['path'].replace('/', '.')}", out.get("md5", ""))
    return True


def _create_run(
    client: "MlflowClient", experiment_id: str, name: str, started_at: float, tags: dict[str, str]
) -> str:
    run = client.create_run(
        experiment_id, round(started_at * 1000), tags | {"mlflow.runName": name}, name
    )
    return str(run.info.run_id)


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/`; anything else becomes `_`."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)


def _read_progress(path: Path) -> Progress:
    try:
        return Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return Progress()
