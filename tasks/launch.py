"""`python -m tasks.launch STAGE`: the command of every stage in dvc.yaml.

Validates, finds the attempt by its key, has the launcher run it, and publishes. It owns the
stage's processes: what it starts ends with it.
"""

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from components.contract import STAGES, Json
from components.errors import InfraError, StageError
from components.params import load_params
from components.section import read_yaml
from tasks import config, outcome
from tasks.dag import StageSpec, read_dag, select
from tasks.flow_record import start_mirror
from tasks.key import digest_paths, stage_key
from tasks.local import LocalLauncher
from tasks.outcome import Outcome
from tasks.process import die_with_supervisor
from tasks.publish import prune, prune_cache, publish_tree, remove
from tasks.run_dir import RunDir, resolved_params

LATEST = "latest.json"
FLOW_RUN = "HEADRACE_FLOW_RUN"
"""The Prefect flow run that asked for this; empty if nobody did."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.launch", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args().stage
    root = Path.cwd()
    die_with_supervisor()
    config.set_environment_defaults(os.environ, root)
    try:
        result = launch(root, stage)
    except StageError as error:
        result = _refusal(root, stage, error)
    if not result.ok:
        print(f"{stage}: {result.kind} error: {result.message}", file=sys.stderr)
        if result.hint:
            print(f"{stage}: {result.hint}", file=sys.stderr)
        _restore(root, stage)
    if not os.environ.get(FLOW_RUN):  # a flow has its own mirror
        start_mirror(root)
    return result.exit_code


@dataclass(frozen=True)
class Prepared:
    """A stage with everything that decides its result, and the run folder that follows from it."""

    run: RunDir
    spec: StageSpec
    params: dict[str, Json]
    digests: dict[str, str]


def prepare(root: Path, stage: str) -> Prepared:
    """Validate all params, read the DAG and find the stage's key."""
    params = load_params(root / "params.yaml")
    dag = read_dag(root)
    spec = dag[select(dag, (stage,))[0]]
    values = resolved_params(params.model_dump(mode="json"), spec)
    digests = digest_paths(root, spec.deps)
    return Prepared(RunDir(root, stage, stage_key(stage, values, digests)), spec, values, digests)


def launch(root: Path, stage: str) -> Outcome:
    """Run `stage` in the project at `root` unless a finished attempt waits to be published."""
    settings = config.load_settings()
    resources = config.load_resources(root).of(stage)
    work = prepare(root, stage)
    run = work.run
    with _alone(run.path.parent):
        last = outcome.read(run.path)
        if last and last.ok and not _recorded_since(run):
            finished = last
        else:
            finished = _attempt(work, settings, resources, last)
        if finished.ok:
            _publish(run)
        outcome.write_json(root / "runs" / stage / LATEST, {"key": run.key})
        return finished


def _attempt(
    work: Prepared,
    settings: config.Settings,
    resources: config.StageResources,
    last: Outcome | None,
) -> Outcome:
    run = work.run
    stale = [run.out, run.reports, run.report, run.path / outcome.NAME]
    if last and last.ok:  # asked to compute it again: from the start, and told as a new story
        stale += [run.work, run.metrics, run.log, run.path / "mirror.json"]
    for path in stale:
        remove(path)
    for path in (run.out, run.reports, run.work):
        path.mkdir(parents=True, exist_ok=True)
    attempt = last.attempt + 1 if last else 1
    request = {
        "stage": run.stage,
        "key": run.key,
        "params": work.params,
        "deps": work.digests,
        "inputs": list(work.spec.inputs),
        "attempt": attempt,
        "num_workers": settings.num_workers,
        "cache": str(_cache(run)),
        "flow_run": os.environ.get(FLOW_RUN, ""),
        "requested_at": time.time(),
    }
    outcome.write_json(run.request, request)
    outcome.write_json(run.path.parent / LATEST, {"key": run.key})
    result = LocalLauncher(settings.grace_s).run(run, resources.num_ranks)
    result = replace(result, attempt=attempt)
    outcome.write(run.path, result)
    return result


def _publish(run: RunDir) -> None:
    outcome.write_json(run.path / "published.json", {"lock_entry": _lock_entry(run)})
    for source, target in run.published().items():
        publish_tree(source, target)
    prune(run.path.parent, run.key)
    prune_cache(_cache(run))


def _cache(run: RunDir) -> Path:
    """The project's own, which the experiments of DVC's temporary workspaces share."""
    return config.home_root(run.root) / "runs" / run.stage / "cache"


def _recorded_since(run: RunDir) -> bool:
    """Whether DVC has recorded this attempt's output, so that running again means: compute again."""
    try:
        before = json.loads((run.path / "published.json").read_text())["lock_entry"]
    except (FileNotFoundError, json.JSONDecodeError):
        return not run.out.is_dir()
    return bool(before != _lock_entry(run)) or not run.out.is_dir()


def _lock_entry(run: RunDir) -> Json:
    path = run.root / "dvc.lock"
    if not path.exists():
        return None
    return (read_yaml(path) or {}).get("stages", {}).get(run.stage)


@contextmanager
def _alone(stage_runs: Path) -> Iterator[None]:
    """Hold the stage's lock; the kernel lets go of it whatever happens to this process."""
    stage_runs.mkdir(parents=True, exist_ok=True)
    with (stage_runs / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InfraError(
                f"{stage_runs.name} is already running in this workspace", "wait for it to end"
            ) from error
        yield


def _refusal(root: Path, stage: str, error: StageError) -> Outcome:
    """The outcome of a stage that could not even be started, kept where the flow looks for it."""
    result = Outcome(
        stage, "", error.kind, error.exit_code, error.message, error.hint, os.uname().nodename, 0,
        time.time(), 0.0, 0.0,
    )  # fmt: skip
    folder = root / "runs" / stage
    folder.mkdir(parents=True, exist_ok=True)
    outcome.write(folder, result)
    return result


def _restore(root: Path, stage: str) -> None:
    """Bring the last good outputs back: DVC removed them before it called us."""
    from tasks.dvc import restore_outputs

    restore_outputs(root, stage)


if __name__ == "__main__":
    sys.exit(main())
