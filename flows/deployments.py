"""`python -m flows.deployments`: serves the flows, so that they can be started from Prefect's UI."""

import asyncio
import os
import signal
from pathlib import Path

from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows import dead_flows
from flows.one_stage import one_stage
from flows.pipeline import pipeline
from flows.promote import promote, rollback
from tasks import config, console, outcome

NUM_FLOW_RUNS = 4
"""Side by side; those in one workspace wait for each other."""


async def serve(root: Path) -> None:
    """Register the flows and run what is started of them, until SIGTERM."""
    runner = Runner(name="headrace", limit=NUM_FLOW_RUNS, query_seconds=2, pause_on_shutdown=False)
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
    tasks = [asyncio.create_task(dead_flows.watch(config.home_root(root)))]
    settings = config.load_settings()
    if settings.launcher == "kubernetes":
        from tasks.cluster import reaper

        tasks.append(asyncio.create_task(reaper.watch(settings)))
    await serving
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    config.set_environment_defaults(os.environ, Path.cwd())
    asyncio.run(serve(Path.cwd()))
