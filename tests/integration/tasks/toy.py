"""A small project with the real chain and stages that do a moment's work: a diamond of four.

`python -m` puts the working folder first, so the toy's own `components` stand in for the real
ones, while `tasks` and `flows` are the real thing.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.resources import resources_yaml

ROOT = Path(__file__).resolve().parents[3]
STAGES = ("source", "left", "right", "join")

STAGE = """
import fcntl, os, re, signal, sys, time
from components.errors import DataError, InfraError, UserError
from components.train import stop

def run(params, io, sink):
    key = next(part for part in io.out.parts if re.fullmatch("[0-9a-f]{12}", part))
    alone = open(f"runs/.running-{key}", "w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        open("runs/twice.txt", "a").write(key + "\\n")
    if params.fate == "ignores the signal":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started = io.work / "started"
    started.write_text(started.read_text() + "x" if started.exists() else "x")
    is_again = len(started.read_text()) > 1
    checkpoint = io.work / "next_step"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(first, params.num_steps):
        if step == params.num_steps // 2:
            with stop.watched():
                if os.path.exists("runs/hold"): (io.work / "held").touch()
                while os.path.exists("runs/hold"):
                    if stop.is_requested():
                        checkpoint.write_text(str(step))
                        raise InfraError("stopped at its checkpoint", "run it again")
                    time.sleep(0.02)
        sink.metrics({"toy/step": float(step)}, step)
        sink.progress(step + 1, params.num_steps, "steps")
        time.sleep(0 if params.fate == "slow once" and is_again else params.step_s)
    match params.fate:
        case "user": raise UserError("the number is wrong", "mend it")
        case "data": raise DataError("the shard is empty")
        case "bug": raise ZeroDivisionError("by zero")
        case "infra once":
            if len(started.read_text()) < 2: raise InfraError("the store was away")
        case "out of memory": raise MemoryError
        case "eats memory":
            eaten = []
            while True: eaten.append(bytearray(b"x") * 10_000_000)
        case "fills":
            with open(os.environ.get("FILLS", str(io.work)) + "/full", "wb") as file:
                for _ in range(300): file.write(bytes(1_000_000)); file.flush(); time.sleep(0.01)
                while True: time.sleep(1)  # more than any limit here, and nobody else's disk is full
        case "exits with 75": os._exit(75)
        case "killed": os.kill(os.getpid(), signal.SIGKILL)
    text = "".join(sorted((path / "text").read_text() for path in io.inputs.values()))
    (io.out / "text").write_text(f"{text}{params.text}")
    (io.reports / "page.html").write_text("<p>a page</p>")
    return {"num_characters": len(text), "nested": {"share": 0.5}}
"""

PARAMS = """
import json
from typing import Literal
from pydantic import Field, ValidationError
from components.errors import UserError
from components.section import Section, explain, read_yaml

class Toy(Section):
    text: str
    num_steps: int = Field(ge=1, le=1000)
    step_s: float = Field(ge=0)
    fate: Literal[
        "ok", "user", "data", "bug", "infra once", "out of memory", "eats memory", "fills",
        "exits with 75", "killed", "ignores the signal", "slow once"
    ]

class Dpo(Section):
    beta: float = Field(gt=0, description="no stage reads it; the form has a field for it")

class Params(Section):
    seed: int
    source: Toy
    left: Toy
    right: Toy
    join: Toy
    dpo: Dpo

PARAMS_OF = {name: Toy for name in ("source", "left", "right", "join")}

def load_params(path):
    try:
        return Params.model_validate_json(json.dumps(read_yaml(path)))
    except ValidationError as error:
        raise UserError("\\n".join(f"{path.name}: {line}" for line in explain(error))) from error
"""

INPUTS = {"source": (), "left": ("source",), "right": ("source",), "join": ("left", "right")}


def build(folder: Path) -> Path:
    """The toy project in `folder`, a git and DVC repository with one commit."""
    components = folder / "components"
    (components / "train").mkdir(parents=True)
    for name in ("__init__", "addresses", "errors", "section", "metrics", "pool", "redaction"):
        (components / f"{name}.py").write_text((ROOT / "components" / f"{name}.py").read_text())
    contract = (ROOT / "components" / "contract.py").read_text()
    (components / "contract.py").write_text(
        re.sub(r"STAGES = \(.*?\)\n", f"STAGES = {STAGES!r}\n", contract, flags=re.DOTALL)
    )
    (components / "params.py").write_text(PARAMS)
    (components / "train" / "__init__.py").write_text("")
    (components / "train" / "stop.py").write_text(
        (ROOT / "components" / "train" / "stop.py").read_text()
    )
    lines = ["stages:"]
    for stage in STAGES:
        (components / stage).mkdir()
        (components / stage / "__init__.py").write_text("")
        (components / stage / "stage.py").write_text(STAGE)
        lines += [
            f"  {stage}:",
            f"    cmd: python -m tasks.launch {stage}",
            "    deps:",
            f"    - components/{stage}",
            *[f"    - artifacts/{name}" for name in INPUTS[stage]],
            f"    params: [seed, {stage}]",
            f"    outs: [artifacts/{stage}, reports/{stage}]",
            f"    metrics: [reports/{stage}.json]",
        ]
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    (folder / "params.yaml").write_text(
        "seed: 1\ndpo: {beta: 0.1}\n"
        + "".join(
            f"{stage}: {{text: {stage[0]}, num_steps: 2, step_s: 0.0, fate: ok}}\n"
            for stage in STAGES
        )
    )
    (folder / "k8s").mkdir()
    (folder / "k8s" / "resources.yaml").write_text(resources_yaml())
    (folder / ".gitignore").write_text(
        "/artifacts/\n/runs/\n/reports/\n/mlruns/\n/mlflow.db*\n__pycache__/\n/.headrace/\n"
    )
    run(folder, "git", "init", "-q")
    init_dvc(folder)
    (folder / ".dvcignore").write_text("__pycache__\n")
    commit(folder, "Begin")
    return folder


def init_dvc(folder: Path) -> None:
    """Make `folder` a DVC project with our own's settings: nothing is sent home after a command."""
    run(folder, sys.executable, "-m", "dvc", "init", "-q", "-f", DVC_NO_ANALYTICS="1")
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")


def environment() -> dict[str, str]:
    """The caller's without HEADRACE_*, MLFLOW_* and PREFECT_*; the interpreter's folder first on the PATH."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HEADRACE_", "MLFLOW_", "PREFECT_", "DVC_"))
    }
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@t",
    }  # fmt: skip


def copy(project: Path, folder: Path) -> Path:
    """`project` as it stands, into `folder`; the mirror's lock keeps MLflow's database at rest."""
    subprocess.run(
        ["flock", str(project / "runs" / ".mirror.lock"), "cp", "-a", str(project), str(folder)],
        check=True,
    )
    return folder


def run(
    folder: Path, *command: str, check: bool = True, timeout_s: float = 180, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=environment() | variables, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout[-4000:]
    return done


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While the body runs, every stage stops halfway, and waits there for its end or for a signal.

    At a signal it writes its checkpoint, as a training stage does, and goes on from it the next time.
    """
    hold = folder / "runs" / "hold"
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", message)


def dvc(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Without the mirror that a stage outside a flow starts when it has ended."""
    command = (sys.executable, "-m", "dvc", *arguments)
    return run(folder, *command, check=check, HEADRACE_FLOW_RUN="none")


def workspace(folder: Path, key: str, value: object) -> Path:
    """The worktree of an experiment, made if need be; nothing runs there."""
    make = "from pathlib import Path; from tasks.workspace import opened"
    make += f"\nwith opened(Path.cwd(), {{{key!r}: {value!r}}}) as root: print(root)"
    return Path(run(folder, sys.executable, "-c", make).stdout.split()[-1])


def set_param(folder: Path, stage: str, **values: object) -> None:
    text = (folder / "params.yaml").read_text()
    for name, value in values.items():
        text = re.sub(rf"(?m)^({stage}: .*{name}): [^,}}]+", rf"\1: {value}", text)
    (folder / "params.yaml").write_text(text)


def add_code(folder: Path, stage: str, code: str) -> None:
    with (folder / "components" / stage / "stage.py").open("a") as file:
        file.write(code)


def text_of(folder: Path, stage: str) -> str:
    return (folder / "artifacts" / stage / "text").read_text()
