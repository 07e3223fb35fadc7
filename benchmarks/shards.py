"""The data stages on two machines against one: two processes of one worker each, one folder.

python -m benchmarks.shards --services "[a-c]*"

Both run the same requests with `tasks.pod`; the output is compared to the last byte. Three ratios:
the stage's own time; the time from the first process's start to the leader's end, with imports
and the data contract, which take several seconds whatever the corpus; and the processor time of the
busiest process, which is what the second would be with a core for each, however busy this machine is.
"""

import argparse
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from components.contract import ON_MANY_MACHINES
from components.params import load_params

ROOT = Path(__file__).resolve().parents[1]
INPUTS = dict(zip(ON_MANY_MACHINES, ("", *ON_MANY_MACHINES), strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", default="[a-c]*", help="glob: botocore's, to read")
    parser.add_argument("--machines", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{arguments.machines} machines to one; of one, seconds")
    print(f"{'stage':>10} {'of one':>7} {'stage':>6} {'from start to end':>18} {'processor':>10}")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        write_params(project / "params.yaml", arguments.services)
        for stage in ON_MANY_MACHINES:
            one = run(project, stage, 1)
            shutil.copytree(project / stage / "1" / "out", project / "artifacts" / stage)
            many = run(project, stage, arguments.machines)
            require_equal(project / stage / "1" / "out", project / stage / "many" / "out")
            stage_s, all_s, cpu_s = (
                of_many / of_one for of_many, of_one in zip(many, one, strict=True)
            )
            print(
                f"{stage:>10} {one[0]:7.1f} {stage_s:6.2f} {all_s:18.2f} {cpu_s:10.2f}", flush=True
            )


def write_params(path: Path, services: str) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    (source,) = params["ingest"]["sources"]
    package, _ = source["location"].split()
    source["location"] = f"{package} {services}/*"
    yaml.dump(params, path)


def run(project: Path, stage: str, num: int) -> tuple[float, float, float]:
    """Seconds: of the stage itself, of everything, and of the busiest process on a processor."""
    folder = project / stage / ("1" if num == 1 else "many")
    for part in ("out", "work", "reports"):
        (folder / part).mkdir(parents=True)
    params = load_params(project / "params.yaml").model_dump(mode="json")
    request = {
        "key": "benchmark",
        "params": {"seed": params["seed"], stage: params[stage]},
        "inputs": [INPUTS[stage]] if INPUTS[stage] else [],
        "attempt": 1,
        "num_workers": 1,
        "cache": str(folder / "cache"),
    }
    (folder / "request.json").write_text(json.dumps(request))
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "RAYON")}
    environment = os.environ | single | {"PYTHONPATH": str(ROOT)}
    started_at = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        pods = [
            subprocess.Popen(
                [sys.executable, "-m", "tasks.pod", stage, str(folder), "--share", f"{index}/{num}"],
                cwd=project, env=environment, stdout=log, stderr=log,
            )
            for index in range(num)
        ]  # fmt: skip
        _, status, usage = os.wait4(pods[0].pid, 0)
        elapsed_s = time.monotonic() - started_at
        for pod in pods[1:]:
            # One that was not needed to the end waits for another leader. Popen would reap it.
            os.kill(pod.pid, signal.SIGTERM)
        usages = [usage, *(os.wait4(pod.pid, 0)[2] for pod in pods[1:])]
    if status:
        raise SystemExit(f"{stage}:\n{(folder / 'log.txt').read_text()[-2000:]}")
    busiest_s = max(one.ru_utime + one.ru_stime for one in usages)
    report = json.loads((folder / "report.json").read_text())
    return report["elapsed_s"], elapsed_s, busiest_s


def require_equal(one: Path, other: Path) -> None:
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    found = sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    _, differing, failing = filecmp.cmpfiles(one, other, names, shallow=False)
    if names != found or differing or failing:
        raise SystemExit(f"{one} and {other} differ: {differing or failing or 'other files'}")


if __name__ == "__main__":
    main()
