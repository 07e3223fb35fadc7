"""Kill something at a random moment, run the same command again, and see that nothing is lost.

    python -m tests.kill --count 50 --seed 1

Each trial changes a param of a toy project with the real chain, starts `headrace run` and sends
SIGKILL or SIGTERM to one of: the flow, `dvc`, `launch`, the stage's own process, the Prefect server,
the MLflow server. Then the same command must finish the job, with the digests of an undisturbed run;
no stage may have run twice at once; no half of an artifact or of dvc.lock may have been seen; nothing
may be left running. At the end MLflow has one run for each output, and none that still runs.
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
import time
from dataclasses import dataclass, field
from pathlib import Path

from components.section import parse_yaml, read_yaml
from tests import mirrored
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import free_ports
from tests.integration.tasks.processes import working_in
from tests.onlooker import Onlooker

TARGETS = ("flow", "dvc", "launch", "pod", "prefect", "mlflow")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
WORDS = {"dvc": "tasks.dvc", "launch": "tasks.launch", "pod": "tasks.pod"}
"""What names a process of the chain in its command line."""
END_TIMEOUT_S = 300.0
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
        trials[-1].faults += mirrored.differences(project, f"http://127.0.0.1:{mlflow}")
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


class Watcher(Onlooker):
    """Looks at what is published, again and again, while the body runs; `faults` is what it saw.

    Each stage's output is what it was, or what the params ask for now. A folder may be empty for a
    moment: DVC removes an old output, and brings one back, file by file. dvc.lock has all stages.
    """

    pause_s = 0.002

    def __init__(self, project: Path) -> None:
        super().__init__()
        self._project = project
        wanted = undisturbed(params_texts(project))
        self._whole = {stage: {text_at(project, stage), wanted[stage]} for stage in toy.STAGES}
        self._lock: bytes | None = None

    def look(self) -> None:
        for stage in toy.STAGES:
            self._look_at(stage)
        self._look_at_lock()

    def _look_at(self, stage: str) -> None:
        folder = self._project / "artifacts" / stage
        try:
            names = [name for name in os.listdir(folder) if not name.startswith(".")]
        except FileNotFoundError:  # it is being computed
            return
        if names not in ([], ["text"]):
            self.found(f"{stage} held {names}")
        text = text_at(self._project, stage)
        if text is not None and text not in self._whole[stage]:
            self.found(f"{stage} was {text!r}, which is none of {self._whole[stage]}")

    def _look_at_lock(self) -> None:
        text = (self._project / "dvc.lock").read_bytes()
        if text == self._lock:
            return
        self._lock = text
        found = digests_in(text)
        for stage, whole in self._whole.items():
            if found.get(stage) not in {dvc_digest(text) for text in whole if text is not None}:
                self.found(f"dvc.lock said {found.get(stage)} of {stage}")


def differences(project: Path, texts: dict[str, str]) -> list[str]:
    """What of the end differs from an undisturbed run, or should not be there."""
    faults = []
    want, got = undisturbed(texts), digests_in((project / "dvc.lock").read_bytes())
    for stage, text in want.items():
        if text_at(project, stage) != text:
            faults.append(f"{stage}: {text_at(project, stage)} for {text}")
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


def digests_in(lock: bytes) -> dict[str, str]:
    """DVC's digest of each stage's artifacts, as the text of a dvc.lock has it."""
    return {
        stage: out["md5"]
        for stage, body in (parse_yaml(lock.decode(), "dvc.lock") or {}).get("stages", {}).items()
        for out in body["outs"]
        if out["path"] == f"artifacts/{stage}"
    }


def text_at(project: Path, stage: str) -> str | None:
    """What the stage has published; None if there is nothing."""
    try:
        return toy.text_of(project, stage)
    except FileNotFoundError:
        return None


def params_texts(project: Path) -> dict[str, str]:
    """Each stage's own text, as the params have it."""
    params = read_yaml(project / "params.yaml")
    return {stage: params[stage]["text"] for stage in toy.STAGES}


def headrace(
    project: Path, verb: str, variables: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    return toy.run(
        project, sys.executable, "-m", "tasks.cli", verb, check=False, timeout_s=300, **variables
    )


if __name__ == "__main__":
    sys.exit(main())
