"""The flow that takes raw text to a registered model: each stage after what it depends on.

The edges are read from dvc.yaml; branches that do not depend on each other run side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from components.contract import STAGES
from components.errors import StageError, disk_faults_typed
from components.params import load_params
from components.train import stop
from flows.end import correct_end
from flows.form import Overrides, Stage, Where
from tasks import config, flow_record, workspace
from tasks.dag import read_dag, select
from tasks.dvc import changed_stages, stop_reproducing
from tasks.plan import unwatched_sources
from tasks.stage import cancel_jobs, register_model, task_of
from tasks.watch import link_to_mlflow, show_result

MIRROR_START_S = 20.0
"""How long the end of a flow run waits for its page in MLflow, to link to it."""

RUNNER: ThreadPoolTaskRunner[State] = ThreadPoolTaskRunner(max_workers=len(STAGES))
"""A thread for each stage: one that waits for another is on the run's page from the start."""

ALL: list[Stage] = []
AS_PARAMS_YAML_SAYS = Overrides()


@flow(
    name="pipeline",
    task_runner=RUNNER,  # type: ignore[arg-type]
    persist_result=False,
    on_failure=[correct_end],
)
def pipeline(
    stages: list[Stage] = ALL,
    force: bool = False,
    pull: bool = False,
    launcher: Where = "default",
    overrides: Overrides = AS_PARAMS_YAML_SAYS,
) -> State:
    """Run what has changed of the ten stages, each after what it depends on; register the model.

    Args:
        stages: Only these; all if none is chosen.
        force: Run also what has not changed.
        pull: Take what it can from the DVC remote instead of computing it.
        launcher: Where the stages run: processes of this machine, or Jobs on the cluster.
        overrides: Params of this run alone; what is left empty is as params.yaml says. The run then
            works beside the project and becomes a DVC experiment.
    """
    return run_stages(stages, force=force, pull=pull, launcher=launcher, overrides=overrides)


def run_stages(
    stages: Sequence[str], *, force: bool, pull: bool, launcher: Where, overrides: Overrides
) -> State:
    """The body of the flows that run stages; to be called in one.

    What became of each stage is in `runs/flows/<flow run>.json`. A failure is returned, not raised:
    one line and no trace for what a person must mend.
    """
    home = config.home_root(Path.cwd())
    try:
        with disk_faults_typed(home):
            where = config.load_settings().launcher if launcher == "default" else launcher
            return _run_stages(home, stages, overrides, force=force, pull=pull, launcher=where)
    except StageError as error:
        return Failed(message=error.line, data=error)


def _run_stages(
    home: Path, stages: Sequence[str], overrides: Overrides, **how: bool | str
) -> State:
    say = get_run_logger().info
    with (
        flow_record.recorded(home, str(flow_run.id)) as record,
        workspace.opened(home, overrides.values(), say) as root,
    ):
        load_params(root / "params.yaml")
        resources = config.load_resources(root)
        names = select(read_dag(root), tuple(stages))
        for line in unwatched_sources(root):
            say(line)
        if how["launcher"] == "kubernetes":
            (home / config.ON_CLUSTER).touch()
        flow_record.place(home, record, root, names)
        states = _run(record, root, names, resources, **how)
        if all(state.is_completed() for state in states.values()):
            if root != home:
                say("saved as experiment %s: `dvc exp show`", workspace.save(root))
            if "evaluate" in names:
                states |= _register(record, root, say)
    note = flow_record.record_path(home, str(flow_run.id)).with_suffix(".mirror.json")
    link_to_mlflow(note, "pipeline", MIRROR_START_S)
    return _end(states)


def _run(
    record: flow_record.FlowRecord, root: Path, names: Sequence[str], resources: config.Resources,
    **how: bool | str,
) -> dict[str, State]:  # fmt: skip
    """The stages' final states, which `record` takes too; if cancelled, what runs may stop first."""
    futures = _submit(root, names, resources, **how)  # type: ignore[arg-type]
    try:
        for future in futures.values():
            future.wait()
    except BaseException as error:  # cancelled: whatever runs writes its checkpoint first
        stop.request()
        stop_reproducing()
        for future in futures.values():
            future.wait()
        if how["launcher"] == "kubernetes" and _is_wanted(error):
            cancel_jobs(root, names)
        raise
    finally:
        states = {name: future.state for name, future in futures.items()}
        record.take(states)
    return states


def _is_wanted(error: BaseException) -> bool:
    """Whether somebody cancelled the run; a flow that is only ended leaves its Jobs to the next one."""
    if isinstance(error, KeyboardInterrupt):
        return True
    # A server that is away has nothing to say.
    with suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run.id))).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def _register(
    record: flow_record.FlowRecord, root: Path, say: Callable[..., object]
) -> dict[str, State]:
    """The state of the registration; none if what was evaluated is not what a whole run would give."""
    stale = changed_stages(root, say)
    if stale:
        say("not registered: %s not up to date", ", ".join(stale))
        return {}
    states = {"register": register_model(str(root), return_state=True)}
    record.take(states)
    show_result(root)
    return states


def _submit(
    root: Path,
    names: Sequence[str],
    resources: config.Resources,
    *,
    force: bool,
    pull: bool,
    launcher: str,
) -> dict[str, PrefectFuture[State]]:
    dag, changed = read_dag(root), changed_stages(root, get_run_logger().info)
    futures: dict[str, PrefectFuture[State]] = {}
    touched: set[str] = set()
    for name in names:
        parents = [parent for parent in dag[name].inputs if parent in futures]
        unchanged = name not in changed and touched.isdisjoint(parents)
        if force or not unchanged:
            touched.add(name)
        task = task_of(name, resources.of(name).retries)
        futures[name] = task.submit(  # type: ignore[call-overload]  # wait_for is not in its stubs
            name,
            str(root),
            unchanged=unchanged,
            force=force,
            pull=pull,
            launcher=launcher,
            wait_for=[futures[parent] for parent in parents],
        )
    return futures


def _end(states: Mapping[str, State]) -> State:
    unfinished = {name: state for name, state in states.items() if not state.is_completed()}
    if not unfinished:
        return Completed()
    reasons = [state.message for state in unfinished.values() if state.is_failed()]
    return Failed(
        message=f"not completed: {', '.join(unfinished)}\n\n{(reasons or [''])[0]}".strip()
    )
