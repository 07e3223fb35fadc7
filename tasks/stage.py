"""The one Prefect task: reproduce a stage, retry what a retry can mend, and say what happened."""

import threading
from collections.abc import Iterable
from pathlib import Path

from prefect import Task, task
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff

from components.errors import InfraError, NodeUnhealthy, StageError, disk_faults_typed
from components.train import stop
from tasks import outcome
from tasks.config import load_settings
from tasks.dvc import reproduce
from tasks.run_dir import latest_run, log_tail
from tasks.watch import is_served, progress_shown

MAX_SIDE_BY_SIDE = 2
"""Stages at once; each already uses all cores, so more would only cost memory."""

BACKOFF_S = 5
UNCHANGED = "nothing that it depends on has changed"
_turns = threading.BoundedSemaphore(MAX_SIDE_BY_SIDE)


async def worth_retrying(task: object, task_run: object, state: State) -> bool:
    """Only the node's and the infrastructure's failures; a user's or the data's stays as it is."""
    if stop.is_requested():
        return False
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, NodeUnhealthy | InfraError)


@task(
    name="stage",
    task_run_name="{stage}",
    retry_condition_fn=worth_retrying,
    persist_result=False,
)
def run_stage(
    stage: str,
    root: str,
    *,
    unchanged: bool = False,
    force: bool = False,
    pull: bool = False,
    launcher: str = "",
) -> State:
    """Completed, Cached (DVC found nothing changed), Restored (from DVC's cache), or Failed.

    A failure is returned, not raised, so that the log has one line and no trace for what a person
    must mend; its data is the typed error.
    """
    if unchanged and not force:
        return Completed(name="Cached", message=UNCHANGED)
    say = {"say": get_run_logger().info} if is_served() else {}
    try:
        with _turns, disk_faults_typed(Path(root)), progress_shown(Path(root), stage):
            if stop.is_requested():  # while it waited for its turn, or for its next try
                raise InfraError(f"{stage}: stopped before it began", "run it again")
            done = reproduce(
                Path(root), stage, str(flow_run.id or ""),
                force=force, pull=pull, launcher=launcher, **say,
            )  # fmt: skip
    except StageError as error:
        return Failed(message=failure_message(Path(root), stage, error), data=error)
    if done.action == "cached":
        return Completed(name="Cached", message=UNCHANGED)
    if done.action == "restored":
        return Completed(name="Restored", message="DVC restored the output of an earlier run")
    assert done.outcome is not None
    took = f"{done.outcome.elapsed_s:.0f} s, {done.outcome.peak_memory_gib:.1f} GiB"
    return Completed(message=f"{took}, key {done.outcome.key}")


def task_of(stage: str, retries: int) -> Task[..., State]:
    """The task under the stage's name, which it has while it waits for its turn, with its retries."""
    return run_stage.with_options(
        name=stage, retries=retries, retry_delay_seconds=exponential_backoff(BACKOFF_S)
    )


def failure_message(root: Path, stage: str, error: StageError) -> str:
    """One line that says what, where and what next; below it the end of the stage's log."""
    run = latest_run(root, stage)
    said = outcome.read(run) if run else None
    # A stage that was refused before it began has no log; the newest is an older attempt's.
    tail = log_tail(run) if run and said and said.message == error.message else ""
    return f"{error.line}\n\n{tail}" if tail else error.line


def cancel_jobs(root: Path, stages: Iterable[str]) -> None:
    """End what the stages still have on the cluster, each after its checkpoint; say what could not be."""
    from tasks.cluster.cancel import cancel_stages

    try:
        for name in cancel_stages(root, stages, load_settings()):
            get_run_logger().info("the Job %s is ended", name)
    except StageError as error:
        get_run_logger().warning(error.line)


@task(name="register", task_run_name="register", persist_result=False)
def register_model(root: str) -> State:
    """Put the evaluated model into the registry, once; MLflow being away fails nothing."""
    from tasks.registry import register

    try:
        with disk_faults_typed(Path(root)):
            registered, new = register(Path(root))
    except InfraError as error:
        get_run_logger().warning("%s; %s", error.message, error.hint)
        return Completed(name="Postponed", message=error.message)
    except StageError as error:
        return Failed(message=error.line, data=error)
    if new:
        return Completed(message=f"{registered.uri} registered")
    return Completed(name="Cached", message=f"{registered.uri} is there already")
