"""DVC decides whether a stage runs. `python -m tasks.dvc STAGE` is `dvc repro -s STAGE`, supervised."""

import argparse
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.errors import DataError, InfraError, StageError, UserError, disk_error
from components.redaction import redacted
from components.train import stop
from tasks import outcome
from tasks.config import FLOW_RUN
from tasks.dag import read_dag
from tasks.dvc_files import repair_dvc_files, run_dvc
from tasks.integrity import (
    drop_damaged_cache,
    dvc_digest,
    has_damaged_outputs,
    has_lost_outputs,
    recorded_outs,
)
from tasks.outcome import Outcome
from tasks.process import die_with_parent
from tasks.publish import remove
from tasks.run_dir import latest_at, latest_run

Action = Literal["cached", "restored", "executed"]


def _print(line: str) -> None:
    print(line, flush=True)


def _print_aside(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # what is asked for may be JSON on the other


_running: set[subprocess.Popen[str]] = set()


def stop_reproducing() -> None:
    """Ask every `dvc repro` of this process to end; its stage writes a checkpoint first."""
    for process in list(_running):
        process.terminate()


@dataclass(frozen=True)
class Reproduced:
    """What DVC did for a stage: nothing, a restore from its cache, or a run."""

    action: Action
    outcome: Outcome | None
    """Of the run, if there was one."""


def reproduce(
    root: Path,
    stage: str,
    flow_run: str,
    *,
    force: bool = False,
    pull: bool = False,
    launcher: str = "",
    say: Callable[[str], object] = _print,
) -> Reproduced:
    """Run `dvc repro -s STAGE` and say what it did. Raises the stage's typed error, or InfraError.

    `say` gets each line that DVC and the stage print, as they print it.
    """
    repair_dvc_files(root, say)
    if not pull:
        _require_inputs(root, stage)
    before = latest_at(root, stage)
    refusal = root / "runs" / stage / outcome.NAME
    if refusal.exists():
        refusal.unlink()
    if has_lost_outputs(root, stage):
        _drop_damaged(root, stage, say)
    code, said = _repro(root, stage, flow_run, force, pull, launcher, say)
    run = latest_run(root, stage)
    begun = run is not None and latest_at(root, stage) != before
    result = outcome.read(run) if run and begun else None
    if code == 0 and result is not None:
        return Reproduced("executed", result)
    if code == 0 and not any("is cached - skipping run" in line for line in said):
        return Reproduced("cached", None)
    if code == 0 and not has_damaged_outputs(root, stage):
        return Reproduced("restored", None)
    if code == 0:
        _drop_damaged(root, stage, say)
        return reproduce(root, stage, flow_run, force=force, launcher=launcher, say=say)
    restore_outputs(root, stage)  # a launch that was killed could not
    ends = [end for end in (result, outcome.read(refusal.parent)) if end is not None and not end.ok]
    raise ends[0].error() if ends else _unsaid(root, stage, code, said, begun)


def _drop_damaged(root: Path, stage: str, say: Callable[[str], object]) -> None:
    num_dropped = len(drop_damaged_cache(root, stage))
    if num_dropped:
        say(f"{stage}: {num_dropped} files in DVC's cache were damaged and are dropped")


def _unsaid(root: Path, stage: str, code: int, said: list[str], begun: bool) -> StageError:
    """The error where no outcome tells it: what launch or DVC itself printed."""
    heard = outcome.heard(stage, said)
    if heard is not None:
        return heard
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR:")]
    message = f"{stage}: {errors[-1] if errors else f'dvc ended with {code}'}"
    refused = disk_error(message, root / ".dvc")
    if refused is not None:
        return type(refused)(f"{stage}: DVC: {refused.message}", refused.hint)
    if _is_busy(message):
        return InfraError(message, "another DVC command works here; try again")
    if code < 0:
        return InfraError(message, "run it again")
    if begun:
        return InfraError(f"{stage} was ended before it could say how", "run it again")
    return StageError(message, "see above what DVC says")


def _repro(
    root: Path,
    stage: str,
    flow_run: str,
    force: bool,
    pull: bool,
    launcher: str,
    say: Callable[[str], object],
) -> tuple[int, list[str]]:
    """The code that DVC ended with, and the last lines it printed."""
    command = [sys.executable, "-m", "tasks.dvc", stage, "--parent", str(os.getpid())]
    command += ["--force"] * force + ["--pull"] * pull
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        FLOW_RUN: flow_run,
    }
    if launcher:
        environment["HEADRACE_LAUNCHER"] = launcher
    said: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        _running.add(process)
        if stop.is_requested():  # too early for stop_reproducing to have seen it
            process.terminate()
        try:
            for line in filter(str.strip, process.stdout):  # DVC puts blank ones between
                said.append(redacted(line.rstrip()))
                say(said[-1])
        finally:
            _running.discard(process)
    return process.returncode, list(said)


def _require_inputs(root: Path, stage: str) -> None:
    """Raise DataError for a missing dependency: DVC would first remove what the stage had put out."""
    for path in read_dag(root)[stage].deps:
        if not (root / path).exists():
            raise DataError(
                f"{stage}: {path} is missing", "run the stage that makes it, or `dvc checkout`"
            )


def _is_busy(message: str) -> bool:
    return "is busy" in message or "Unable to acquire lock" in message


def changed_stages(root: Path, say: Callable[[str], object] = _print_aside) -> dict[str, list[str]]:
    """The stages that DVC sees as changed, each with the reasons; unchanged ones are absent.

    Waits, and says so, while another DVC command, such as `dvc push`, holds the project.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    repair_dvc_files(root, _print)
    status, waits = None, False
    while status is None:
        try:
            with Repo(str(root)) as repo:
                status = repo.status()
        except LockError:  # after some seconds; the kernel frees it when its holder ends
            if not waits:
                say("waiting for another DVC command, which works here")
            waits = True
        except DvcException as error:
            raise StageError(f"dvc status: {error}", "see `dvc doctor`") from error
    changed: dict[str, list[str]] = {}
    for address, entries in status.items():
        name = address.rpartition(":")[2]  # outside the working folder DVC puts a path before it
        reasons = []
        for entry in entries:
            if isinstance(entry, str):
                reasons.append(entry)
                continue
            for what, paths in entry.items():
                if isinstance(paths, dict):
                    reasons += [f"{what}: {path} {how}" for path, how in paths.items()]
                else:
                    reasons.append(str(what))
        changed[name] = reasons
    return changed


def restorable_stages(root: Path, stages: Sequence[str]) -> set[str]:
    """Those of `stages` whose output, for inputs as they are now, lies in DVC's cache of runs."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    found = set()
    with suppress(LockError), Repo(str(root)) as repo, repo.lock:
        for name in stages:
            (stage,) = repo.stage.collect(f"{root / 'dvc.yaml'}:{name}")
            with suppress(DvcException):  # an input is not there
                stage.save_deps()
                run = repo.stage_cache._load(stage)
                if run and repo.stage_cache._create_stage(run, wdir=stage.wdir).outs_cached():
                    found.add(name)
    return found


def require_code_alone(root: Path, stage: str) -> None:
    """Raise UserError unless the stage has changed, and nothing of it but files of code."""
    reasons = changed_stages(root).get(stage, [])
    others = [reason for reason in reasons if not reason.startswith("changed deps: components/")]
    if others:
        raise UserError(
            f"{stage}: {'; '.join(others)}", f"only changed code can be accepted: dvc repro {stage}"
        )
    if not reasons:
        raise UserError(f"{stage} is unchanged", "there is nothing to accept")


def accept(root: Path, stage: str) -> None:
    """Record the stage's code as it is, with the output it has. Raises StageError if DVC does not."""
    require_code_alone(root, stage)
    done = subprocess.run(
        [sys.executable, "-m", "tasks.dvc_files", "commit", "--force", stage], cwd=root, check=False
    )
    if done.returncode:
        raise StageError(f"dvc commit {stage} ended with {done.returncode}", "see above")


def restore_outputs(root: Path, stage: str) -> None:
    """Check the stage's recorded outputs out again: DVC removes them before a run that then fails.

    Goes past DVC's stage lock, which our own parent `dvc repro` holds for us. What its cache no
    longer holds whole stays away: better nothing than half of it.
    """
    if not (root / "dvc.lock").exists():
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    lost, reason = [], "damaged in DVC's cache"
    try:
        with Repo(str(root)) as repo:
            for out in recorded_outs(repo, root, stage):
                if out.exists:
                    continue
                path = Path(out.fs_path)
                with suppress(DvcException):
                    out.checkout(force=True)
                if not path.exists() or dvc_digest(path) != out.hash_info.value:
                    remove(path)
                    lost.append(out.def_path)
        if lost:
            drop_damaged_cache(root, stage)
    except (DvcException, OSError) as error:
        lost, reason = ["its outputs"], str(error).splitlines()[0]
    if lost:
        with suppress(OSError):
            print(f"{stage}: not restored: {', '.join(lost)}: {reason}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.dvc", description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("--parent", type=int, required=True, help="PID to end with")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--pull", action="store_true")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    flags = ["--force"] * arguments.force + ["--pull"] * arguments.pull
    return run_dvc(["--wait-for-lock", "repro", "-s", *flags, arguments.stage])


if __name__ == "__main__":
    sys.exit(main())
