"""The flows that move the alias `champion`."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from components.errors import StageError, disk_faults_typed
from flows.end import correct_end
from flows.form import Reason
from tasks import config, flow_record, promotion
from tasks.watch import LAST_RETRIES, expendable


def _recorded(body: Callable[..., State]) -> Callable[..., State]:
    """Keep a record while the flow works, by which it is noticed if it is killed.

    A typed error is returned, not raised: one line and no trace.
    """

    @wraps(body)
    def with_record(*words: str, **named: str) -> State:
        home = config.home_root(Path.cwd())
        try:
            with (
                disk_faults_typed(home),
                flow_record.recorded(home, str(flow_run.id), body.__name__) as record,
            ):
                state = body(*words, **named)
                if not state.is_completed():
                    record.state = "FAILED"
            return state
        except StageError as error:
            return Failed(message=error.line)

    return with_record


@flow(name="promote", persist_result=False, on_failure=[correct_end])
@_recorded
def promote(version: str = "", override: Reason = "") -> State:
    """Take a version through the gates of gates.yaml and make it champion if all hold.

    Args:
        version: Its number; the newest if left empty.
        override: A reason to make it champion although gates fail. It goes on the record.
    """
    result = promotion.promote(Path.cwd(), version.strip(), override, _who())
    with expendable(LAST_RETRIES):  # it is on the version too
        create_markdown_artifact(
            result.text, key="verdict", description=f"version {result.version}"
        )
    if result.moved:
        return Completed(message=f"version {result.version} is champion")
    failed = [row.gate for row in result.rows if not row.passed]
    return Failed(message=f"version {result.version} is not promoted: {', '.join(failed)}")


@flow(name="rollback", persist_result=False, on_failure=[correct_end])
@_recorded
def rollback(reason: Reason) -> State:
    """Make the champion before the present one champion again.

    Args:
        reason: For the record.
    """
    entry = promotion.rollback(reason, _who())
    return Completed(
        message=f"version {entry.after} is champion again, after {entry.before}: {entry.why}"
    )


def _who() -> str:
    """Whoever started the flow run, if Prefect knows."""
    context = FlowRunContext.get()
    creator = context.flow_run.created_by if context and context.flow_run else None
    return (creator.display_value or "") if creator else ""
