"""`python -m tasks.launch STAGE`: the command of every stage in dvc.yaml.

Validates, finds the attempt by its key, has the launcher run it, and publishes. It owns the
stage's processes: what it starts ends with it.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import components
from components.contract import STAGES, Json
from components.errors import (
    InfraError,
    NodeUnhealthy,
    StageError,
    UserError,
    disk_faults_typed,
)
from components.params import load_params
from components.redaction import redact_output, redacted
from tasks import config, outcome
from tasks.claim import settle
from tasks.config import FLOW_RUN
from tasks.dag import StageSpec, read_dag, select
from tasks.flow_record import git_commit, start_mirror
from tasks.integrity import require_whole_inputs
from tasks.key import digest_paths, file_digests, stage_key
from tasks.local import Launcher, LocalLauncher
from tasks.locks import held, this_process
from tasks.outcome import Outcome
from tasks.process import die_with_supervisor
from tasks.publish import LOCK, prune, prune_cache, publish_tree, remove
from tasks.run_dir import (
    Latest,
    RunDir,
    lock_entry,
    read_latest,
    read_request,
    resolved_params,
    write_latest,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.launch", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args().stage
    redact_output()
    root = Path.cwd()
    die_with_supervisor()
    config.set_environment_defaults(os.environ, root)
    try:
        with disk_faults_typed(root):
            _require_own_code(root, stage)
            result = launch(root, stage)
    except StageError as error:
        result = _refusal(root, stage, error)
    if not result.ok:
        with suppress(OSError):  # whoever would read it may be gone
            for line in outcome.said(result):
                print(line, file=sys.stderr)
        _restore(root, stage)
    if not os.environ.get(FLOW_RUN):  # a flow has its own mirror
        start_mirror(root)
    return result.exit_code


def _require_own_code(root: Path, stage: str) -> None:
    """Raise UserError where a process here would run other code than DVC hashes for the stage.

    With PYTHONSAFEPATH Python takes what is installed, which may be another checkout's.
    """
    place = Path(components.__file__).resolve().parents[1]
    if place == root.resolve() or config.load_settings().launcher != "local":
        return
    dag = read_dag(root)
    spec = dag[select(dag, (stage,))[0]]
    code = [path for path in spec.code if Path(path).parts[0] == "components"]
    if file_digests(place, code) != file_digests(root, code):
        raise UserError(
            f"{stage}: Python takes its code from {place}, where it is another than in {root}",
            "unset PYTHONSAFEPATH, so that the working folder's comes first",
        )


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
    run = RunDir(root, stage, stage_key(stage, values, digests))
    return Prepared(run, spec, values, digests)


def launch(root: Path, stage: str) -> Outcome:
    """Run `stage` in the project at `root` unless a finished attempt waits to be published."""
    settings = config.load_settings()
    resources = config.load_resources(root).of(stage)
    work = prepare(root, stage)
    require_whole_inputs(root, stage, work.spec.inputs)
    run = work.run
    with _alone(run) as lock:
        last = outcome.read(run.path)
        at_hand = last is not None and last.ok and run.out.is_dir()
        recorded = at_hand and _is_recorded(run)
        if last is not None and at_hand and not recorded:
            finished = last
        else:
            finished = _attempt(work, settings, resources, last, _launcher(settings, root, lock))
        if finished.ok:
            _publish(run, recorded)
        else:
            write_latest(root, stage, Latest(run.key))
        return finished


def _attempt(
    work: Prepared,
    settings: config.Settings,
    resources: config.StageResources,
    last: Outcome | None,
    launcher: Launcher,
) -> Outcome:
    """Run it from its checkpoint, or from the start if it was computed whole before.

    What an earlier launcher began, and what goes on without it, is gone on with as it is.

    In an order in which a kill at any point is harmless. What was computed goes first, for while it
    lies there with an outcome that is ok, it is published as it is. Then the request says what is
    done now, and an outcome whose attempt is not the request's is an older one's. That outcome
    goes before the output's folder is there again, and before `latest.json` names the attempt.
    """
    run = work.run
    before = read_request(run.path)
    if launcher.goes_on(run, before):
        write_latest(run.root, run.stage, Latest(run.key))
        result = replace(launcher.run(run, resources), attempt=before["attempt"])
        outcome.write(run.path, result)
        return result
    settle(run.path)  # of an attempt on a cluster: its last pod may still be writing somewhere
    stale = [run.out, run.reports, run.report]
    if last and last.ok:  # asked to compute it again: from the start
        stale += [run.work, run.metrics, run.log]
    for path in stale:
        remove(path)
    request = next_request(work, settings, before, last)
    outcome.write_json(run.request, request)
    remove(run.path / outcome.NAME)
    for path in (run.out, run.reports, run.work):
        path.mkdir(parents=True, exist_ok=True)
    write_latest(run.root, run.stage, Latest(run.key))
    result = replace(launcher.run(run, resources), attempt=request["attempt"])
    outcome.write(run.path, result)
    return result


def _launcher(settings: config.Settings, root: Path, lock: int) -> Launcher:
    if settings.launcher == "local":
        return LocalLauncher(settings.grace_s, lock)
    from tasks.cluster.launcher import KubernetesLauncher

    return KubernetesLauncher(settings, root)


def next_request(
    work: Prepared, settings: config.Settings, before: Mapping[str, Json], last: Outcome | None
) -> dict[str, Json]:
    """What request.json is to say, after the request `before` (empty if there was none) and its end.

    One that was not computed whole is gone on with: it keeps its `begun_at` and adds to its
    `flow_runs`, by which MLflow has one run for all attempts that lead to one output; and it stays
    away from nodes that were sick.
    """
    now, flow_run = time.time(), os.environ.get(FLOW_RUN, "")
    whole = last is not None and last.ok and last.attempt == before.get("attempt", last.attempt)
    flow_runs = [] if whole else [run for run in before.get("flow_runs", []) if run != flow_run]
    avoid = [] if whole else list(before.get("avoid_nodes", []))
    if last is not None and last.kind == NodeUnhealthy.kind and last.node not in avoid:
        avoid.append(last.node)
    return {
        "stage": work.run.stage,
        "key": work.run.key,
        "params": work.params,
        "deps": work.digests,
        "code": file_digests(work.run.root, work.spec.code),
        "inputs": list(work.spec.inputs),
        "attempt": before.get("attempt", last.attempt if last else 0) + 1,
        "launcher": settings.launcher,
        "num_workers": settings.num_workers,
        "avoid_nodes": avoid,
        "cache": str(work.run.cache),
        "flow_run": flow_run,
        "flow_runs": [*flow_runs, flow_run] if flow_run else flow_runs,
        "git_commit": git_commit(work.run.root),
        "workspace": str(work.run.root),
        "begun_at": now if whole else before.get("begun_at", now),
        "requested_at": now,
    }


def _publish(run: RunDir, recorded: bool) -> None:
    """Make the output visible, unless what it was computed from has changed meanwhile.

    DVC reads params and dependencies again after the command, and would record the output under
    what they are by then. Raises UserError.
    """
    if prepare(run.root, run.stage).run.key != run.key:
        raise UserError(
            f"{run.stage}: params, code or inputs were changed while it ran; nothing is published",
            "run it again; if you change them back, what it computed is published",
        )
    entry = lock_entry(run.root, run.stage)
    write_latest(run.root, run.stage, Latest(run.key, True, entry, recorded))
    for source, target in run.published().items():
        publish_tree(source, target)
    prune(run.path.parent, run.key, _say)
    prune_cache(run.cache)


def _is_recorded(run: RunDir) -> bool:
    """Whether DVC has recorded this attempt's output, so that running again means: compute again."""
    latest = read_latest(run.root, run.stage)
    if latest is None or latest.key != run.key or not latest.published:
        return False
    return latest.recorded_before or latest.lock_entry != lock_entry(run.root, run.stage)


@contextmanager
def _alone(run: RunDir) -> Iterator[int]:
    """Hold the attempt's lock, and yield its descriptor; the kernel lets go whatever happens to us.

    Another workspace may want the same attempt: one works on it, the other waits, however long that
    takes, and says so. The stage's process inherits the lock: one that outlives a killed `launch`,
    to write its checkpoint, still holds it. Raises InfraError if a signal ends the waiting.
    """

    def say(holder: str) -> None:
        _say(f"{run.stage}: waits for {holder}: it works on the same attempt")

    run.path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with _signals_raise(run.stage):
            lock = held(run.path / LOCK, this_process(run.root), say)
            descriptor = stack.enter_context(lock)
        yield descriptor


@contextmanager
def _signals_raise(stage: str) -> Iterator[None]:
    """Raise InfraError in the body on SIGTERM and SIGINT."""

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise InfraError(f"{stage} was ended by {name} before it began", "run it again")

    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads it
        print(line, flush=True)


def _refusal(root: Path, stage: str, error: StageError) -> Outcome:
    """The outcome of a stage that could not be started or published, kept where the flow looks for it.

    On a full disk it is only said.
    """
    result = Outcome(
        stage, "", error.kind, error.exit_code, redacted(error.message), redacted(error.hint),
        os.uname().nodename, 0, time.time(), 0.0, 0.0,
    )  # fmt: skip
    folder = root / "runs" / stage
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        outcome.write(folder, result)
    return result


def _restore(root: Path, stage: str) -> None:
    """Bring the last good outputs back: DVC removed them before it called us."""
    from tasks.dvc import restore_outputs

    restore_outputs(root, stage)


if __name__ == "__main__":
    sys.exit(main())
