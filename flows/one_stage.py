"""The flow that runs a single stage, if it has changed, and nothing before or after it."""

from prefect import flow
from prefect.client.schemas.objects import State

from flows.end import correct_end
from flows.form import Overrides, Stage, Where
from flows.pipeline import AS_PARAMS_YAML_SAYS, RUNNER, run_stages


@flow(
    name="one-stage",
    task_runner=RUNNER,  # type: ignore[arg-type]
    persist_result=False,
    on_failure=[correct_end],
)
def one_stage(
    stage: Stage,
    force: bool = False,
    pull: bool = False,
    launcher: Where = "default",
    overrides: Overrides = AS_PARAMS_YAML_SAYS,
) -> State:
    """Run one stage if it has changed, and nothing before or after it.

    Args:
        stage: What it depends on must be there.
        force: Run it although nothing has changed.
        pull: Take it from the DVC remote, if it is there, instead of computing it.
        launcher: Where the stage runs: processes of this machine, or a Job on the cluster.
        overrides: Params of this run alone; what is left empty is as params.yaml says. The run then
            works beside the project and becomes a DVC experiment.
    """
    return run_stages([stage], force=force, pull=pull, launcher=launcher, overrides=overrides)
