"""Kill something at a random moment, run the same command again, and see that nothing is lost.

    python -m tests.kill --count 50 --seed 1

Each trial changes a param of a toy project with the real chain, starts `headrace run` and sends
SIGKILL or SIGTERM to one of: the flow, `dvc`, `launch`, the stage's own process, the Prefect server,
the MLflow server. Then the same command must finish the job, with the digests of an undisturbed run;
no stage may have run twice at once; no half of an artifact may have been seen; nothing may be left
running.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from components.section import read_yaml
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import free_ports
from tests.integration.tasks.processes import working_in

TARGETS = ("flow", "dvc", "launch", "pod", "prefect", "mlflow")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
WORDS = {"dvc": "tasks.dvc", "launch": "tasks.launch", "pod": "tasks.pod"}
"""What names a process of the chain in its command line."""
END_TIMEOUT_S = 120.0
OURS_AT_REST = ("tasks.tracking", "prefect server start", "mlflow", "flows.deployments")
"""What may go on: the mirror, which ends by itself, and the console."""


@dataclass
class Trial:
    number: int
    target: str
    signal: signal.Signals
    after_s: float
    hit: str = ""
    """The command line that was hit; empty if the run had ended before."""
    faults: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-kill-", ignore_cleanup_errors=True) as folder:
        trials = run_trials(Path(folder), arguments.count, arguments.seed, arguments.targets)
    return summed_up(trials)


def summed_up(trials: list[Trial]) -> int:
    """Print how the trials went; the program's exit code."""
    failed = [trial for trial in trials if trial.faults]
    print(f"{len(trials)} trials, {sum(bool(t.hit) for t in trials)} hits, {len(failed)} failed")
    return 1 if failed else 0


def run_trials(folder: Path, count: int, seed: int, targets: tuple[str, ...]) -> list[Trial]:
    """Trials one after the other in one project, whose state they inherit from each other."""
    project = toy.build(folder / "project")
    texts = {stage: stage[0] for stage in toy.STAGES}
    for stage in toy.STAGES:
        toy.set_param(project, stage, num_steps=8, step_s=0.1)
    toy.commit(project, "Take a moment")
    prefect, mlflow = free_ports(2)
    ports = {"HEADRACE_PREFECT_PORT": str(prefect), "HEADRACE_MLFLOW_PORT": str(mlflow)}
    generator = random.Random(seed)
    headrace(project, "up", ports)
    trials = []
    try:
        began = time.monotonic()
        run = headrace(project, "run", ports)
        typical_s = time.monotonic() - began
        assert run.returncode == 0, run.stdout
        assert differences(project, texts) == []
        for number in range(count):
            trial = Trial(
                number,
                generator.choice(targets),
                generator.choice(SIGNALS),
                generator.uniform(0.0, 0.5 * typical_s),  # later, many have ended
            )
            stage = generator.choice(toy.STAGES)
            texts[stage] = f"{stage[0]}{number}"
            toy.set_param(project, stage, text=texts[stage])
            one_trial(project, trial, ports)
            trial.faults += differences(project, texts)
            trials.append(trial)
            verdict = "; ".join(trial.faults) or "ok"
            print(
                f"{number + 1:>3}/{count}  {trial.signal.name:<7} {trial.target:<7} "
                f"after {trial.after_s:5.1f} s  {'hit' if trial.hit else 'missed':<6}  {verdict}",
                flush=True,
            )
    finally:
        headrace(project, "down", ports)
    return trials


def one_trial(project: Path, trial: Trial, ports: dict[str, str]) -> None:
    with Watcher(project) as watcher:
        log = (project / "runs" / "trial.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.cli", "run"], cwd=project,
            env=toy.environment() | ports, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        hit(project, process, trial)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            trial.faults.append(f"the run did not end in {END_TIMEOUT_S:.0f} s")
            process.kill()
            process.wait()
        up = headrace(project, "up", ports)
        if up.returncode:
            trial.faults.append(f"up: {up.stdout}")
        again = headrace(project, "run", ports)
        if again.returncode:
            said = again.stdout[-2000:]
            trial.faults.append(f"the same command again ended with {again.returncode}: {said}")
    trial.faults += watcher.faults


def hit(project: Path, process: "subprocess.Popen[bytes]", trial: Trial) -> None:
    """Send the signal at its moment, or as soon after it as the target exists."""
    time.sleep(trial.after_s)
    while process.poll() is None:
        pid = pid_of(project, trial.target, process.pid)
        if pid:
            try:
                trial.hit = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                os.kill(pid, trial.signal)
            except OSError:
                trial.hit = ""
            else:
                return
        time.sleep(0.02)


def pid_of(project: Path, target: str, flow: int) -> int | None:
    if target == "flow":
        return flow
    if target in ("prefect", "mlflow"):
        record = project / ".headrace" / "console" / f"{target}.json"
        return int(read_yaml(record)["pid"]) if record.exists() else None
    return next(iter(working_in(project, WORDS[target])), None)


class Watcher:
    """Looks at what is published, again and again, while the body runs."""

    def __init__(self, project: Path) -> None:
        self.faults: list[str] = []
        self._project = project
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.002):
            for folder in (self._project / "artifacts").glob("[a-z]*"):
                try:
                    names = os.listdir(folder)
                except OSError:  # removed between two looks
                    continue
                if [name for name in names if not name.startswith(".")] not in ([], ["text"]):
                    self.faults.append(f"{folder.name} held {names}")
            if (self._project / "dvc.lock").stat().st_size == 0:
                self.faults.append("dvc.lock was empty")


def differences(project: Path, texts: dict[str, str]) -> list[str]:
    """What of the end differs from an undisturbed run, or should not be there."""
    faults = []
    want, got = undisturbed(texts), recorded(project)
    for stage, text in want.items():
        if toy.text_of(project, stage) != text:
            faults.append(f"{stage}: {toy.text_of(project, stage)} for {text}")
        if got.get(stage) != dvc_digest(text):
            faults.append(f"dvc.lock: {stage}: {got.get(stage)} for {dvc_digest(text)}")
    if (project / "runs" / "twice.txt").exists():
        faults.append("twice at once: " + (project / "runs" / "twice.txt").read_text().strip())
        (project / "runs" / "twice.txt").unlink()
    left = [path.name for path in (project / "artifacts").glob(".*") if path.name != ".gitignore"]
    if left:
        faults.append(f"left behind in artifacts: {', '.join(left)}")
    orphans = [
        command
        for command in working_in(project).values()
        if not any(word in command for word in OURS_AT_REST)
    ]
    if orphans:
        faults.append(f"still running: {orphans}")
    return faults


def undisturbed(texts: dict[str, str]) -> dict[str, str]:
    """What each stage of the toy puts out, from its own text: what it reads, sorted, and that."""
    found: dict[str, str] = {}
    for stage in toy.STAGES:
        found[stage] = "".join(sorted(found[name] for name in toy.INPUTS[stage])) + texts[stage]
    return found


def dvc_digest(text: str) -> str:
    """DVC's digest of a folder with the one file `text`."""
    entry = {"md5": hashlib.md5(text.encode()).hexdigest(), "relpath": "text"}
    return hashlib.md5(json.dumps([entry], sort_keys=True).encode()).hexdigest() + ".dir"


def recorded(project: Path) -> dict[str, str]:
    """DVC's digest of each stage's artifacts, as dvc.lock has it."""
    return {
        stage: out["md5"]
        for stage, body in (read_yaml(project / "dvc.lock") or {}).get("stages", {}).items()
        for out in body["outs"]
        if out["path"] == f"artifacts/{stage}"
    }


def headrace(
    project: Path, verb: str, variables: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    return toy.run(
        project, sys.executable, "-m", "tasks.cli", verb, check=False, timeout_s=300, **variables
    )


if __name__ == "__main__":
    sys.exit(main())
