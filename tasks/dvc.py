"""DVC decides whether a stage runs. `python -m tasks.dvc STAGE` is `dvc repro -s STAGE`, supervised."""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.errors import InfraError, StageError
from tasks import outcome
from tasks.outcome import Outcome
from tasks.process import die_with_parent

Action = Literal["cached", "restored", "executed"]


@dataclass(frozen=True)
class Reproduced:
    """What DVC did for a stage: nothing, a restore from its cache, or a run."""

    action: Action
    outcome: Outcome | None
    """Of the run, if there was one."""


def reproduce(
    root: Path, stage: str, flow_run: str, *, force: bool = False, pull: bool = False
) -> Reproduced:
    """Run `dvc repro -s STAGE` and say what it did. Raises the stage's typed error, or InfraError."""
    repair_locks(root)
    pointer = root / "runs" / stage / "latest.json"
    before = _modified_at(pointer)
    refusal = root / "runs" / stage / outcome.NAME
    refusal.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tasks.dvc", stage, "--parent", str(os.getpid())]
    command += ["--force"] * force + ["--pull"] * pull
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HEADRACE_FLOW_RUN": flow_run,
    }
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            print(line, end="", flush=True)
            said = [*said[-40:], line.rstrip()]
    if _modified_at(pointer) != before:
        key = json.loads(pointer.read_text(encoding="utf-8"))["key"]
        result = outcome.read(root / "runs" / stage / key)
        if result is None:
            raise InfraError(f"{stage} was ended before it could say how", "run it again")
        if not result.ok:
            raise result.error()
        if process.returncode == 0:
            return Reproduced("executed", result)
    refused = outcome.read(refusal.parent)
    if refused is not None:
        raise refused.error()
    if process.returncode == 0:
        restored = any("is cached - skipping run" in line for line in said)
        return Reproduced("restored" if restored else "cached", None)
    errors = [line for line in said if line.startswith("ERROR:")]
    message = (
        errors[-1].removeprefix("ERROR: ") if errors else f"dvc ended with {process.returncode}"
    )
    if "busy" in message or "lock" in message.lower() or process.returncode < 0:
        raise InfraError(
            f"{stage}: {message}", "another DVC command holds this workspace; try again"
        )
    raise StageError(f"{stage}: {message}")


def changed_stages(root: Path) -> dict[str, list[str]]:
    """The stages that DVC sees as changed, each with the reasons; unchanged ones are absent."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    repair_locks(root)
    try:
        with Repo(str(root)) as repo:
            status = repo.status()
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


def restore_outputs(root: Path, stage: str) -> None:
    """Check the stage's recorded outputs out again: DVC removes them before a run that then fails.

    Goes past DVC's stage lock, which our own parent `dvc repro` holds for us.
    """
    if not (root / "dvc.lock").exists():
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            for node in repo.stage.collect(stage):
                for out in node.outs:
                    if out.hash_info and not out.exists:
                        out.checkout(force=True)
    except (DvcException, OSError) as error:
        print(
            f"{stage}: its last outputs are not restored ({error}); `dvc checkout` does it",
            file=sys.stderr,
        )


def repair_locks(root: Path) -> None:
    """Remove a lock file that a killed DVC left half-written; whole ones DVC judges itself, by PID."""
    path = root / ".dvc" / "tmp" / "rwlock"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (json.JSONDecodeError, UnicodeDecodeError):
        path.unlink(missing_ok=True)


def _modified_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.dvc", description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("--parent", type=int, required=True, help="PID to end with")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--pull", action="store_true")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    from dvc.cli import main as dvc

    flags = ["--force"] * arguments.force + ["--pull"] * arguments.pull
    return int(dvc(["--wait-for-lock", "repro", "-s", *flags, arguments.stage]))


if __name__ == "__main__":
    sys.exit(main())
