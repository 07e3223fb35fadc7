"""`dvc repro` with nothing changed against `dvc status`, in a project whose stages have all run.

python -m benchmarks.unchanged --project .

`dvc status` hashes what has changed on disk and compares; `dvc repro` should add little to it. Beside
them `headrace plan`, which is to answer within 3 seconds, and the whole flow, which starts Prefect and
asks MLflow for the registered model.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "dvc status": ("dvc", "status"),
    "dvc repro": ("dvc", "repro"),
    "headrace plan": ("tasks.cli", "plan"),
    "headrace run": ("tasks.cli", "run"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.repeats):
        for name, command in COMMANDS.items():
            took[name].append(elapsed_s(arguments.project, command))
    peer_s = statistics.median(took["dvc status"])
    print(f"{'command':>14} {'seconds':>8} {'x dvc status':>13}")
    for name, seconds in took.items():
        median_s = statistics.median(seconds)
        print(f"{name:>14} {median_s:8.1f} {median_s / peer_s:13.2f}")


def elapsed_s(project: Path, command: tuple[str, ...]) -> float:
    """Seconds that the command took; raises if it failed or ran a stage."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True, check=True
    )
    if "Running stage" in done.stdout:
        raise SystemExit(f"{' '.join(command)} ran a stage: the project was not up to date")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
