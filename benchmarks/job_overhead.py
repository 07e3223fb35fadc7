"""What a stage costs as a Kueue Job beyond the same stage as a process, and beyond a bare Job.

    python -m k8s.devcluster exec python -m benchmarks.job_overhead --rounds 5

Three things in turn, in the same run: a toy stage that does nothing, as a process of this machine; a
bare Job of the same image that does nothing, from its creation to Complete; the stage as a Job,
with its pre-check. The rest is ours: rendering, watching, the pre-check, the container's start.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cluster import projects
from tests.integration.tasks import toy


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job_overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with (
        tempfile.TemporaryDirectory(prefix="headrace-overhead-") as folder,
        projects.lent("overhead", Path(folder)) as namespace,
    ):
        project = projects.build(Path(folder) / "project")
        table = [_round(project, namespace, number) for number in range(rounds + 1)][1:]
    process, bare, job = (statistics.median(column) for column in zip(*table, strict=True))
    print(
        f"{'process':>12} {'bare Job':>12} {'stage as Job':>12} {'beyond both':>12}   (s, medians)"
    )
    print(f"{process:12.2f} {bare:12.2f} {job:12.2f} {job - process - bare:12.2f}")
    print(f"a stage as a Job takes {job / (process + bare):.2f} times a process and a bare Job")
    return 0


def _round(project: Path, namespace: str, number: int) -> tuple[float, float, float]:
    """Seconds of the process, of the bare Job, of the stage as a Job; the first round warms up."""
    toy.set_param(project, "source", text=f"here{number}")
    process_s = _launch(project, {})
    bare_s = _bare(namespace, f"bare-{number}")
    toy.set_param(project, "source", text=f"there{number}")
    variables = projects.environment(project, namespace, projects.kubeconfig())
    return process_s, bare_s, _launch(project, variables)


def _launch(project: Path, variables: dict[str, str]) -> float:
    began = time.monotonic()
    toy.run(
        project,
        sys.executable,
        "-m",
        "tasks.launch",
        "source",
        HEADRACE_FLOW_RUN="none",
        **variables,
    )
    return time.monotonic() - began


def _bare(namespace: str, name: str) -> float:
    restricted: dict[str, Any] = {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
        "runAsUser": projects.UID, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {
        "name": "bare", "image": projects.IMAGE, "command": ["python", "-c", "pass"],
        "securityContext": restricted,
        "resources": {
            "requests": {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "1Mi"},
        },
    }  # fmt: skip
    job = {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"kueue.x-k8s.io/queue-name": "data"},
        },
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }  # fmt: skip
    began = time.monotonic()
    projects.apply([job])
    wait = ("--for=condition=Complete", "--timeout=60s", "-n", namespace)
    projects.kubectl("wait", f"job/{name}", *wait)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
