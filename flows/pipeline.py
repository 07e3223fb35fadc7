"""The flow that takes raw text to a registered model: each stage after what it depends on.

The edges are read from dvc.yaml; branches that do not depend on each other run side by side.
"""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from components.params import load_params
from tasks import config, flow_record
from tasks.dag import read_dag, select
from tasks.dvc import changed_stages
from tasks.stage import register_model, run_stage

MAX_SIDE_BY_SIDE = 2
"""Stages at once; each already uses all cores, so more would only cost memory."""


@flow(
    name="pipeline",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_SIDE_BY_SIDE),  # type: ignore[arg-type]
    persist_result=False,
)
def pipeline(stages: tuple[str, ...] = (), force: bool = False, pull: bool = False) -> State:
    """Reproduce `stages` (all if empty) in the DAG's order, then register the model.

    What became of each stage is in `runs/flows/<flow run>.json`.
    """
    root = Path.cwd()
    load_params(root / "params.yaml")
    config.load_settings()
    config.load_resources(root)
    dag = read_dag(root)
    names = select(dag, tuple(stages))
    changed = changed_stages(root)
    with flow_record.recorded(root, str(flow_run.id), names) as record:
        futures: dict[str, PrefectFuture[State]] = {}
        touched: set[str] = set()
        for name in names:
            parents = [parent for parent in dag[name].inputs if parent in futures]
            unchanged = name not in changed and touched.isdisjoint(parents)
            if force or not unchanged:
                touched.add(name)
            futures[name] = run_stage.submit(  # type: ignore[call-overload]  # wait_for is not in its stubs
                name,
                str(root),
                unchanged=unchanged,
                force=force,
                pull=pull,
                wait_for=[futures[parent] for parent in parents],
            )
        states: dict[str, State] = {}
        for name, future in futures.items():
            future.wait()
            states[name] = future.state
        if "evaluate" in names and all(state.is_completed() for state in states.values()):
            states["register"] = register_model(str(root), return_state=True)
        record.take(states)
    unfinished = [name for name, state in states.items() if not state.is_completed()]
    if unfinished:
        return Failed(message=f"not completed: {', '.join(unfinished)}")
    return Completed()
