"""Kill something on the cluster at a random moment, run the same command again, and see that nothing is lost.

    python -m k8s.devcluster exec python -m tests.cluster.kill --count 50 --seed 1

Each trial changes a param of the toy project, starts `headrace run` with stages as Kueue Jobs, and
ends with -9 one of: the flow, `dvc`, `launch`, the stage's process or the first process of its
container, the kubelet, Kueue, the controller manager, the API server, the node controller. Servers
come back after some seconds. Then the same command must finish the job with the digests of an
undisturbed run; no stage may have run twice at once; no Job and no process may be left. The node
controller has work too: in each trial a fake node fails its pre-check, and in the end it must have
been taken out, once.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.preflight.report import Finding, Report
from k8s.devcluster import processes
from tasks.cluster.api import NODES, connect
from tests import kill
from tests.cluster import projects
from tests.cluster.fake_nodes import Pool
from tests.cluster.node_programs import Started, wait_for
from tests.integration.tasks import toy
from tests.kill import Trial, Watcher, summed_up

PROCESSES = {
    "dvc": "-m tasks.dvc",
    "launch": "-m tasks.launch",
    "stage": "-m tasks.pod",
    "container": "-m tasks.container",
}
"""What names a process of the chain in its command line."""
SERVERS = ("kubelet", "kueue", "kube-controller-manager", "kube-apiserver")
TARGETS = ("flow", *PROCESSES, *SERVERS, "node-controller")
FATAL = Finding("xid", "fail", "GPU 3: Xid 79, fallen off the bus", fatal=True, device=3, value=79)
END_TIMEOUT_S = 240.0
TYPICAL_S = 12.0
"""A moment is drawn from so long a time; a run that has ended by then is a miss."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.kill", description=__doc__)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    arguments = parser.parse_args()
    trials = run_trials(arguments.count, arguments.seed, tuple(arguments.targets))
    return summed_up(trials)


def run_trials(count: int, seed: int, targets: tuple[str, ...], prefect: str = "") -> list[Trial]:
    """Trials one after the other in one project; with a Prefect server at hand a flow starts faster."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-kill-"))
    try:
        with (
            projects.lent("kill", folder) as namespace,
            _judged(namespace, folder / "node-controller.log") as judged,
        ):
            project = projects.build(folder / "project")
            variables = projects.environment(project, namespace, projects.kubeconfig())
            variables |= {"PREFECT_API_URL": prefect} if prefect else {}
            for stage in toy.STAGES:
                toy.set_param(project, stage, num_steps=8, step_s=0.1)
            toy.commit(project, "Take a moment")
            return _trials(project, namespace, variables, judged, count, seed, targets)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trials(
    project: Path, namespace: str, variables: dict[str, str], judged: "_Judged",
    count: int, seed: int, targets: tuple[str, ...],
) -> list[Trial]:  # fmt: skip
    generator, texts = random.Random(seed), {stage: stage[0] for stage in toy.STAGES}
    first = _run(project, variables)
    assert first.returncode == 0, first.stdout
    trials = []
    for number in range(count):
        trial = Trial(
            number, generator.choice(targets), signal.SIGKILL, generator.uniform(0.0, TYPICAL_S)
        )
        away_s = generator.uniform(0.5, 4.0)
        stage = generator.choice(toy.STAGES)
        texts[stage] = f"{stage[0]}{number}"
        toy.set_param(project, stage, text=texts[stage])
        judged.add(number)
        _one_trial(project, variables, judged, trial, away_s)
        trial.faults += kill.differences(project, texts)
        trial.faults += judged.faults()
        trial.faults += _left_over(namespace)
        trials.append(trial)
        print(
            f"{number + 1:>3}/{count}  {trial.target:<23} after {trial.after_s:5.1f} s  "
            f"{'hit' if trial.hit else 'missed':<6}  {'; '.join(trial.faults) or 'ok'}",
            flush=True,
        )
    return trials


def _one_trial(
    project: Path, variables: dict[str, str], judged: "_Judged", trial: Trial, away_s: float
) -> None:
    with Watcher(project) as watcher:
        with (project / "runs" / "trial.log").open("w") as log:
            flow = subprocess.Popen(
                [sys.executable, "-m", "tasks.cli", "run"], cwd=project,
                env=toy.environment() | variables, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            _hit(project, flow, judged, trial, away_s)
            try:
                flow.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                trial.faults.append(f"the run did not end in {END_TIMEOUT_S:.0f} s")
                flow.kill()
                flow.wait()
        again = _run(project, variables)
        if again.returncode:
            trial.faults.append(
                f"the same command again ended with {again.returncode}: {again.stdout[-2000:]}"
            )
    trial.faults += watcher.faults


def _hit(
    project: Path, flow: "subprocess.Popen[bytes]", judged: "_Judged", trial: Trial, away_s: float
) -> None:  # fmt: skip
    """Kill the target at its moment, or as soon after it as it exists; servers come back."""
    time.sleep(trial.after_s)
    judged.fail_newest()
    if flow.poll() is not None:
        return
    if trial.target in SERVERS:
        trial.hit = trial.target
        processes.kill(trial.target)
        time.sleep(away_s)
        processes.restart(trial.target)
        return
    if trial.target == "node-controller":
        trial.hit = trial.target
        judged.controller.kill()
        judged.controller.start()
        return
    while flow.poll() is None:
        pid = flow.pid if trial.target == "flow" else _pid_of(project, PROCESSES[trial.target])
        if pid:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
            trial.hit = command
            return
        time.sleep(0.02)


def _pid_of(project: Path, words: str) -> int | None:
    """A process of the project, here or in a container: there its paths are the same."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if words in command and (str(project) in command or where == str(project)):
            return int(entry.name)
    return None


def _left_over(namespace: str) -> list[str]:
    """Jobs that have not ended, and pods that have not either."""
    jobs = [
        job["metadata"]["name"]
        for job in projects.get("jobs", "-n", namespace)["items"]
        if not any(
            condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
            for condition in job["status"].get("conditions", [])
        )
    ]
    pods = [
        pod["metadata"]["name"]
        for pod in projects.get("pods", "-n", namespace)["items"]
        if pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]
    return [f"left on the cluster: {', '.join(jobs + pods)}"] if jobs or pods else []


def _run(project: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return toy.run(
        project, sys.executable, "-m", "tasks.cli", "run", check=False, timeout_s=300, **variables
    )


class _Judged:
    """Fake nodes, and the node controller as a process of this machine that acts on them for real."""

    def __init__(self, pool: Pool, controller: Started) -> None:
        self.controller, self._pool = controller, pool
        self._names: list[str] = []

    def add(self, number: int) -> None:
        """A node with a stage's pod, which is well as yet."""
        name = f"{self._pool.name}-{number:03d}"
        self._pool.create_nodes([name])
        self._pool.create_pod(name, name)
        wait_for(lambda: self._pool.state(name) == "healthy", f"{name} to be judged")
        self._names.append(name)

    def fail_newest(self) -> None:
        """The pre-check of the newest node's pod ends: what the controller must take up, killed or not."""
        name = self._names[-1]
        self._pool.end_preflight(name, 69, Report(name, time.time(), "none", (FATAL,), 0.1))

    def faults(self) -> list[str]:
        """What of the judgements is not as it should be; the controller's own end is one."""
        if self.controller.exit_code is not None:
            last = (self.controller.said().splitlines() or ["no word"])[-1]
            return [f"the node controller ended with {self.controller.exit_code}: {last}"]
        try:
            wait_for(lambda: self._pool.taints(self._names[-1]), "the taint", 60)
        except AssertionError as error:
            return [f"{self._names[-1]} is not taken out: {error}"]
        quarantines = {
            name: len(record.quarantines_at) if record else 0
            for name, record in ((name, self._pool.record(name)) for name in self._names)
        }
        return [
            f"taken out {many} times: {name}" for name, many in quarantines.items() if many != 1
        ]


@contextmanager
def _judged(namespace: str, log: Path) -> Iterator[_Judged]:
    """They go with the body, with all that the controller noted on them: no other node is its own."""
    pool = Pool(connect(), namespace, log.parent)
    policy = pool.policy(breaker={"max_fraction": 1.0})
    command = [sys.executable, "-m", "tasks.nodes.controller", "--apply"]
    command += ["--selector", pool.selector, "--policy", str(policy)]
    environ = os.environ | {"HEADRACE_NAMESPACE": namespace, "PYTHONPATH": str(toy.ROOT)}
    log.touch()
    controller = Started(command, environ, str(log))
    controller.start()
    try:
        yield _Judged(pool, controller)
    finally:
        controller.kill()
        for node in pool.nodes():
            pool.api.delete(f"{NODES}/{node['metadata']['name']}")


if __name__ == "__main__":
    sys.exit(main())
