"""Mirrors `runs/` to MLflow: one parent run per flow run, one run per output that was computed.

The files are the truth and the mirror only reads them, so MLflow may be down, slow or wiped:
whatever it has not taken is sent the next time. How far each run is mirrored is in its
`mirror.json`; a kill between a send and that note costs something sent twice, which MLflow takes
once.

- All attempts that lead to one output are one run, found by its tags `headrace.stage_key` and
  `headrace.begun_at`; computing it again from the start is another. Its parent and its
  `prefect.flow_run_id` are those of the newest flow run that worked on it; `headrace.flow_runs`
  names all of them, the oldest first.
- A run whose attempt nobody works on, without an outcome, is KILLED; gone on with, it is RUNNING
  again.
- What someone deleted in MLflow stays deleted. In another store, by its address or by the
  experiment in it, everything is mirrored anew.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.redaction import redacted
from tasks import flow_record, mirror_note, mlflow_run, outcome
from tasks.mirror_note import Progress, Sent, note_of, parse_progress, read_progress
from tasks.mlflow_run import Store
from tasks.outcome import Outcome
from tasks.publish import is_held
from tasks.run_dir import read_request

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECORD_WAIT_S = 60.0
"""How long after its end a run waits for DVC's record; later the next mirror sends it."""


@dataclass(frozen=True)
class Round:
    num_open: int
    """Runs that are not finished yet, or that MLflow did not take."""
    problems: list[str]
    """One line for each run that could not be sent."""


def mirror_all(client: "MlflowClient", root: Path, sent: Sent | None = None) -> Round:
    """Send what is new in every run folder; what ails one run holds up no other.

    What `sent` holds is passed over while its files stay as they are; what is sent whole is added.
    Raises whatever MLflow's client raises if MLflow itself is away.
    """
    store = mlflow_run.open_store(client, root)
    done = {} if sent is None else sent.setdefault(store, {})
    num_open, problems = 0, []
    for path, send in _runs(client, store, root):
        try:
            versions = mirror_note.versions(path)
            if done.get(path) == versions:
                continue
            if not send(path):
                num_open += 1
            elif mirror_note.is_whole(path):
                done[path] = versions | mirror_note.version(note_of(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # Files of another version, or cut off: waiting mends nothing.
            problems.append(f"{_name(path)} cannot be read: {type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001  an artifact store raises what it likes
            client.get_experiment(store.experiment_id)  # MLflow is away, and will take none
            num_open += 1
            said = redacted(str(error))[:300]
            problems.append(f"{_name(path)}: {type(error).__name__}: {said}")
    return Round(num_open, problems)


def _runs(
    client: "MlflowClient", store: Store, root: Path
) -> "Iterator[tuple[Path, partial[bool]]]":
    """Flows before stages: a stage's run names its flow's."""
    for path in flow_record.record_paths(root):
        yield path, partial(_mirror_flow, client, store)
    for path in sorted((root / "runs").glob("*/*/request.json")):
        yield path.parent, partial(_mirror_stage, client, store, root)


def _name(path: Path) -> str:
    return f"runs/{path.parent.name}/{path.name}"


def _mirror_flow(client: "MlflowClient", store: Store, path: Path) -> bool:
    """Send what is new of a flow run's record; say whether nothing more is to come."""
    record = flow_record.read(path)
    if record is None or record.flow != "pipeline":
        return True
    note = note_of(path)
    progress = read_progress(note, store, record.started_at)
    if progress.ended_at or progress.deleted:
        return True
    over = flow_record.is_over(path, record)
    if over:
        record = flow_record.read(path) or record  # it may have said its end while we looked
    mark = {"headrace.kind": "flow", "headrace.flow_run": record.id}
    tags = {
        "headrace.git_commit": record.git_commit,
        "headrace.stages": ",".join(record.stages),
        "prefect.flow_run_id": record.id,
        **{f"headrace.state.{stage}": state["name"] for stage, state in record.states.items()},
    }
    with _kept(client, progress, note):
        if not progress.run_id:
            name = f"pipeline {record.id[:8]}"
            _begin(client, progress, note, name, record.started_at, mark)
        _send_tags(client, progress, tags)
        if over:
            progress.status = record.state if record.ended_at else "KILLED"
            ended_at = record.ended_at or path.stat().st_mtime
            client.set_terminated(progress.run_id, progress.status, round(ended_at * 1000))
            progress.ended_at = ended_at
    return over or progress.deleted


def _mirror_stage(client: "MlflowClient", store: Store, root: Path, run_dir: Path) -> bool:
    """Send what is new of an attempt; say whether nothing more is to come."""
    request = read_request(run_dir)
    if not request:
        return True
    note = note_of(run_dir)
    begun_at = float(request.get("begun_at") or request["requested_at"])  # older ones have none
    progress = read_progress(note, store, begun_at)
    if progress.deleted:
        return True
    ended, status, ended_at = _end(run_dir, request)
    tags = _stage_tags(root, request)
    is_told = (progress.status, progress.ended_at) == (status, ended_at)
    waits = status == "FINISHED" and not progress.lock_entry
    if is_told and progress.tags == tags and status != "RUNNING" and not waits:
        return True
    mark = {
        "headrace.kind": "stage",
        "headrace.stage": request["stage"],
        "headrace.stage_key": request["key"],
        "headrace.begun_at": repr(begun_at),
    }
    with _kept(client, progress, note):
        if not progress.run_id:
            _begin(client, progress, note, request["stage"], begun_at, mark)
        _send_tags(client, progress, tags)
        if not progress.params_sent:
            mlflow_run.send_params(client, progress.run_id, request["params"])
            progress.params_sent = True
        metrics = run_dir / "metrics.jsonl"
        progress.offset = mlflow_run.send_metrics(client, progress.run_id, metrics, progress.offset)
        if not is_told:
            _send_status(client, progress.run_id, run_dir, ended, status, ended_at)
            progress.status, progress.ended_at = status, ended_at
            progress.lock_entry = False
        if status == "FINISHED" and not progress.lock_entry:
            progress.lock_entry = mlflow_run.send_lock_entry(client, progress.run_id, request)
    if progress.deleted or status in ("FAILED", "KILLED") or progress.lock_entry:
        return True
    return status == "FINISHED" and time.time() - ended_at > RECORD_WAIT_S


def _end(run_dir: Path, request: Mapping[str, Any]) -> tuple[Outcome | None, str, float]:
    """The outcome of the request if there is one, MLflow's word for it, and when it ended (0: not yet)."""
    ended = _outcome_of(run_dir, request)
    if ended is None:
        if is_held(run_dir):
            return None, "RUNNING", 0.0
        ended = _outcome_of(run_dir, request)  # it may have ended while we looked
    if ended is None:
        return None, "KILLED", _last_sign_at(run_dir)
    return ended, "FINISHED" if ended.ok else "FAILED", ended.started_at + ended.elapsed_s


def _outcome_of(run_dir: Path, request: Mapping[str, Any]) -> Outcome | None:
    """None also for the outcome of an older request, which launch is about to remove."""
    ended = outcome.read(run_dir)
    return ended if ended is not None and ended.attempt == request["attempt"] else None


def _last_sign_at(run_dir: Path) -> float:
    """When the attempt wrote something for the last time."""
    signs = [run_dir / name for name in ("request.json", "metrics.jsonl", "log.txt")]
    return max(sign.stat().st_mtime for sign in signs if sign.exists())


def _send_status(
    client: "MlflowClient",
    run_id: str,
    run_dir: Path,
    ended: Outcome | None,
    status: str,
    ended_at: float,
) -> None:
    if ended is not None:
        mlflow_run.send_end(client, run_id, run_dir, ended, ended_at)
    elif status == "RUNNING":
        client.update_run(run_id, status)
    else:
        client.set_terminated(run_id, status, round(ended_at * 1000))


def _stage_tags(root: Path, request: Mapping[str, Any]) -> dict[str, str]:
    """Who works on it: they change when another flow run goes on with it."""
    flow_run, flows = request["flow_run"], root / "runs" / "flows"
    tags = {
        "headrace.git_commit": request["git_commit"],
        "headrace.attempt": str(request["attempt"]),
        "headrace.flow_runs": ",".join(request.get("flow_runs", [])),
    }
    if flow_run:
        tags["prefect.flow_run_id"] = flow_run
        parent = parse_progress(flows / f"{flow_run}.mirror.json")
        if parent.run_id and not parent.deleted:
            tags["mlflow.parentRunId"] = parent.run_id
    return tags


def _begin(
    client: "MlflowClient",
    progress: Progress,
    note: Path,
    name: str,
    begun_at: float,
    mark: dict[str, str],
) -> None:
    progress.run_id = mlflow_run.find_or_create(
        client, progress.experiment_id, name, begun_at, mark
    )
    outcome.write_json(note, asdict(progress))  # before anything else can fail


def _send_tags(client: "MlflowClient", progress: Progress, tags: dict[str, str]) -> None:
    if tags != progress.tags:
        mlflow_run.send_tags(client, progress.run_id, tags)
        progress.tags = tags


@contextmanager
def _kept(client: "MlflowClient", progress: Progress, note: Path) -> Iterator[None]:
    """Keep how far the body comes, also when it fails; no failure if someone deleted the run."""
    from mlflow.exceptions import MlflowException

    before = asdict(progress)
    try:
        yield
    except MlflowException:
        if not progress.run_id or not mlflow_run.is_gone(client, progress.run_id):
            raise
        progress.deleted = True
    finally:
        if asdict(progress) != before:
            outcome.write_json(note, asdict(progress))
