"""The record of promotions: append-only, in MLflow, the same for everyone who shares the server.

Each entry is a param of one MLflow run, named by its number. MLflow never changes a param, so an
entry stays as it is, and of two who write the same number one is refused: that decides who was
first. The model's page shows each entry as a tag; an entry without its tag was written, but the
alias not moved yet.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from components.errors import InfraError, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "headrace promotions"
TAG = "promotion."
WAIT_S = 10.0
MAX_WHY_CHARS = 2000

Action = Literal["promote", "rollback", "by hand"]


@dataclass(frozen=True)
class Entry:
    """One move of the alias `champion`."""

    action: Action
    before: str
    """Version that was champion; empty for none."""
    after: str
    who: str
    why: str
    at: str
    """UTC, ISO 8601."""
    token: str
    """Of whoever wrote it: tells one's own entry from an equal one."""


def read(client: "MlflowClient") -> list[Entry]:
    """All entries, the oldest first."""
    run_id = _run(client)
    params = client.get_run(run_id).data.params
    return [Entry(**json.loads(params[name])) for name in sorted(params)]


def append(client: "MlflowClient", entry: Entry, position: int) -> bool:
    """Write `entry` as number `position`; False if somebody else has written that one."""
    from mlflow.exceptions import MlflowException

    text = json.dumps(asdict(entry), ensure_ascii=False, sort_keys=True)
    try:
        client.log_param(_run(client), _name(position), text)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        return False
    return True


def show(client: "MlflowClient", model: str, position: int, entry: Entry) -> None:
    """Put the entry on the model's page, and so say that the alias has been moved."""
    client.set_registered_model_tag(model, TAG + _name(position), _text(entry))


def is_shown(tags: dict[str, str], position: int, entry: Entry) -> bool:
    """Whether its tag is there; one of an earlier journal, under the same number, is not its own."""
    return tags.get(TAG + _name(position)) == _text(entry)


def _text(entry: Entry) -> str:
    move = f"{entry.before or 'none'} -> {entry.after}"
    return f"{entry.at} {entry.action} {move} by {entry.who}: {entry.why}"


def champions(entries: Sequence[Entry]) -> list[str]:
    """The versions that were champion and not rolled back, the present one last; empty for none."""
    stack: list[str] = []
    for entry in entries:
        if entry.action == "rollback":
            del stack[_last(stack[:-1], entry.after) + 1 :]
        else:
            stack.append(entry.after)
    return stack


def _last(items: Sequence[str], wanted: str) -> int:
    """Position of the last `wanted`."""
    return max(index for index, item in enumerate(items) if item == wanted)


def _name(position: int) -> str:
    return f"{position:06d}"


def _run(client: "MlflowClient") -> str:
    """The run that holds the entries; made by whoever is first to make its experiment.

    Raises UserError if somebody deleted it: an empty one in its place would lose the record.
    """
    from mlflow.entities import LifecycleStage, ViewType
    from mlflow.exceptions import MlflowException

    try:
        experiment_id = client.create_experiment(EXPERIMENT)
        return str(client.create_run(experiment_id, run_name="journal").info.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise InfraError(
            f"MLflow's experiment {EXPERIMENT!r} vanished", "restore it in MLflow's UI"
        )
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"the record of promotions, MLflow's experiment {EXPERIMENT!r}, is deleted",
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}` it",
        )
    deadline = time.monotonic() + WAIT_S
    while True:
        runs = client.search_runs(
            [experiment.experiment_id],
            run_view_type=ViewType.ALL,
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if runs:
            run_id = str(runs[0].info.run_id)
            if runs[0].info.lifecycle_stage == LifecycleStage.DELETED:
                raise UserError(
                    f"the record of promotions, MLflow's run {run_id}, is deleted",
                    f"`mlflow runs restore --run-id {run_id}` it",
                )
            return run_id
        if time.monotonic() > deadline:  # its maker was killed in between
            return str(client.create_run(experiment.experiment_id, run_name="journal").info.run_id)
        time.sleep(0.2)
