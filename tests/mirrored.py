"""What MLflow has of a toy project's runs, once all of them have ended."""

import sys
from collections import Counter
from pathlib import Path

from tests.integration.tasks import toy


def differences(project: Path, address: str) -> list[str]:
    """What MLflow has of all runs that it should not have, once the mirror has sent everything."""
    from mlflow import MlflowClient

    toy.run(project, "flock", "runs/.mirror.lock", "true")
    toy.run(project, sys.executable, "-m", "tasks.tracking", MLFLOW_TRACKING_URI=address)
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("headrace")
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    faults = [
        f"MLflow: {run.info.run_name} is still {run.info.status}"
        for run in runs
        if run.info.status not in ("FINISHED", "FAILED", "KILLED")
    ]
    stage_runs = [run for run in runs if "headrace.stage_key" in run.data.tags]
    of_key = Counter(
        (run.data.tags["headrace.stage"], run.data.tags["headrace.stage_key"]) for run in stage_runs
    )
    outputs = {
        (path.parts[-3], path.parts[-2]) for path in (project / "runs").glob("*/*/request.json")
    }
    faults += [f"MLflow: {num} runs for {'/'.join(key)}" for key, num in of_key.items() if num > 1]
    if set(of_key) != outputs:
        faults.append(f"MLflow: no run, or no output, of {set(of_key) ^ outputs}")
    unfinished = [run.info.run_name for run in stage_runs if run.info.status != "FINISHED"]
    if unfinished:
        faults.append(f"MLflow: not finished: {unfinished}")
    if client.search_registered_models():
        faults.append("MLflow: a model is registered, of stages that evaluate none")
    return faults
