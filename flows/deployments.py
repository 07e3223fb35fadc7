"""`python -m flows.deployments`: serves the flows, so that they can be started from Prefect's UI."""

import asyncio
import os
import signal
from pathlib import Path

from components.redaction import redact_output
from tasks import config

if __name__ == "__main__":  # what flow runs print comes through this process too
    redact_output()
    config.set_environment_defaults(os.environ, Path.cwd())

from prefect.types.entrypoint import EntrypointType

from flows import cancelled, dead_flows
from flows.one_stage import one_stage
from flows.patient_runner import PatientRunner
from flows.pipeline import pipeline
from flows.promote import promote, rollback
from tasks import console, outcome

NUM_FLOW_RUNS = 4
"""Side by side; those in one workspace wait for each other."""
LOOK_S = 10.0
"""Between two looks whether any flow run has Jobs."""


async def serve(root: Path) -> None:
    """Register the flows and run what is started of them, until SIGTERM."""
    runner = PatientRunner(
        name="headrace", limit=NUM_FLOW_RUNS, query_seconds=2, pause_on_shutdown=False
    )
    for flow in (pipeline, one_stage, promote, rollback):
        await runner.aadd_flow(flow, name=flow.name, entrypoint_type=EntrypointType.MODULE_PATH)
    serving = asyncio.create_task(runner.start())
    while not (runner.started or serving.done()):
        await asyncio.sleep(0.05)
    # The runner's own handler leaves its flow runs to themselves (3.8.8: astop is never awaited).
    stopping: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: stopping.append(asyncio.create_task(runner.astop()))
    )
    outcome.write_json(console.folder(root) / console.READY, {"pid": os.getpid()})
    home = config.home_root(root)
    watches = (
        dead_flows.watch(home), cancelled.watch(home), _reap(config.load_settings(), home),
    )  # fmt: skip
    tasks = [asyncio.create_task(watch) for watch in watches]
    await serving
    for task in tasks:
        task.cancel()


async def _reap(settings: config.Settings, home: Path) -> None:
    """Look after Jobs from the first flow run on that has some: it may choose that in the form."""
    while settings.launcher != "kubernetes" and not (home / config.ON_CLUSTER).exists():
        await asyncio.sleep(LOOK_S)
    from tasks.cluster import reaper

    await reaper.watch(settings, home)


if __name__ == "__main__":
    asyncio.run(serve(Path.cwd()))
