"""What Prefect is told of a flow run's end, if its server was away just then."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.states import Completed

from tasks import config, flow_record
from tasks.watch import LAST_RETRIES, expendable

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

AWAY = "it ended while Prefect's server was away"


def correct_end(flow: Any, flow_run: "FlowRun", state: "State") -> None:
    """Call a flow run completed that ended well, and that Prefect calls failed.

    Where the server does not take a run's end, Prefect's engine takes that for a failure of the flow,
    and says so if the server is back by then. A hook on failure.
    """
    path = flow_record.record_path(config.home_root(Path.cwd()), str(flow_run.id))
    record = flow_record.read(path)
    if record is not None and record.state == "FINISHED":
        with expendable(LAST_RETRIES), get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Completed(message=AWAY), force=True)
