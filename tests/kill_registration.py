"""Kill a registration at a random moment, ask for it again, and see that no half of one was visible.

    python -m tests.kill_registration --count 50 --seed 1

Each trial registers small real models under an evaluation's key of its own, in a process that SIGKILL
ends. A reader looks at the registry all the time: each version that it sees has its key, and loads
and answers. The same call again must then leave one version for the key, no run of MLflow that is
still running, and no staged files.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from tests.kill import Trial, summed_up
from tests.onlooker import Onlooker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

END_TIMEOUT_S = 120.0
PRELOADED = (
    "mlflow.pyfunc", "torch", "tasks.registry", "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)  # fmt: skip
"""What takes seconds to import, once for all registrations."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill_registration", description=__doc__)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-kill-") as folder:
        return summed_up(run_trials(Path(folder), arguments.count, arguments.seed))


def run_trials(folder: Path, count: int, seed: int) -> list[Trial]:
    """Trials one after the other in one project and one registry."""
    from mlflow import MlflowClient

    from tests.integration.tasks.registered import evaluated

    project = evaluated(folder / "project")
    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    client.search_experiments()  # makes the tables, which takes seconds
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    generator = random.Random(seed)
    first = context.Process(target=os.getpid)  # begins when all is imported
    first.start()
    first.join()
    # The shorter of two: after one that something else slowed down, the moments would come too late.
    typical_s = min(undisturbed_s(context, project, name) for name in ("first", "second"))
    trials = []
    for number in range(count):
        trial = Trial(number, "register", signal.SIGKILL, generator.uniform(0.0, typical_s))
        one_trial(context, project, client, trial)
        trials.append(trial)
        verdict = "; ".join(trial.faults) or "ok"
        print(
            f"{number + 1:>3}/{count}  after {trial.after_s:5.2f} s  "
            f"{'hit' if trial.hit else 'missed':<6}  {verdict}",
            flush=True,
        )
    return trials


def undisturbed_s(context: ForkServerContext, project: Path, key: str) -> float:
    began = time.monotonic()
    assert ended(begun(context, project, key)) == 0, said(project)
    return time.monotonic() - began


def one_trial(
    context: ForkServerContext, project: Path, client: "MlflowClient", trial: Trial
) -> None:
    key = f"k{trial.number}"
    with Reader(client) as reader:
        process = begun(context, project, key)
        process.join(trial.after_s)
        process.kill()
        if ended(process) == -signal.SIGKILL:
            trial.hit = key
        code = ended(begun(context, project, key))
        if code != 0:
            trial.faults.append(f"the same call again ended with {code}: {said(project)}")
    trial.faults += reader.faults + differences(project, client, key)


def begun(context: ForkServerContext, project: Path, key: str) -> ForkServerProcess:
    """A process that registers what is evaluated in the project, as the evaluation `key`."""
    process = context.Process(target=register, args=(project, key), daemon=True)
    process.start()
    return process


def register(project: Path, key: str) -> None:
    from tasks import config, registry

    log = os.open(project / "registration.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    config.set_environment_defaults(os.environ, project)
    os.chdir(project)
    registry.prepare = lambda *_: SimpleNamespace(run=SimpleNamespace(key=key))  # type: ignore[assignment]
    registry.register(project)


def ended(process: ForkServerProcess) -> int | None:
    """Its exit code once it has ended; None if it does not end."""
    process.join(END_TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        return None
    return process.exitcode


def said(project: Path) -> str:
    return (project / "registration.log").read_text()[-2000:]


class Reader(Onlooker):
    """Looks at the registry, again and again, while the body runs; `faults` is what it saw."""

    pause_s = 0.005

    def __init__(self, client: "MlflowClient") -> None:
        super().__init__()
        self._client = client
        self._seen: set[str] = set()

    def look(self) -> None:
        from tasks.registry import MODEL_NAME

        for version in self._client.search_model_versions(f"name = '{MODEL_NAME}'"):
            self._look_at(version)

    def _look_at(self, version: "ModelVersion") -> None:
        number = str(version.version)
        if not version.tags.get("headrace.stage_key"):
            self.found(f"version {number} had no key")
        if number not in self._seen:
            self._seen.add(number)
            try:
                ask(self._client, number)
            except Exception as error:  # noqa: BLE001  whatever a half of a model raises
                self.found(f"version {number} did not answer: {error!r}")


def ask(client: "MlflowClient", number: str) -> None:
    """Load a version of the registry from its files, and have it answer."""
    import mlflow

    from tasks.registry import MODEL_NAME

    files = client.get_model_version_download_uri(MODEL_NAME, number)
    mlflow.pyfunc.load_model(files).predict(["?"], params={"max_new_tokens": 1})


def differences(project: Path, client: "MlflowClient", key: str) -> list[str]:
    """What of the end differs from one registration of `key` that nobody disturbed."""
    from tasks.registry import FOLDER, MODEL_NAME

    faults = []
    found = client.search_model_versions(f"name = '{MODEL_NAME}'")
    num = sum(version.tags.get("headrace.stage_key") == key for version in found)
    if num != 1:
        faults.append(f"{num} versions for {key}")
    experiment = client.get_experiment_by_name("headrace")
    assert experiment is not None
    running = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    faults += [f"MLflow: {run.info.run_name} is still running" for run in running]
    if (project / FOLDER / ".staged").exists():
        faults.append("staged files are left behind")
    return faults


if __name__ == "__main__":
    sys.exit(main())
