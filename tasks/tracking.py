"""`python -m tasks.tracking`: sends to MLflow what `runs/` holds and it has not taken yet.

A flow starts one to follow it; a stage run outside a flow starts one when it has ended; anyone may
start one at any time. One works at a time. MLflow being away delays nobody but this process.
"""

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.redaction import redact_output, redacted
from tasks import config
from tasks.flow_record import has_ended
from tasks.mirror import mirror_all
from tasks.mirror_note import Sent

FOLLOW_INTERVAL_S = 2.0


@contextmanager
def _only_mirror(root: Path, wait: bool) -> Iterator[bool]:
    """One mirror at a time in a project; the kernel frees the lock whatever happens to us."""
    (root / "runs").mkdir(exist_ok=True)
    with (root / "runs" / ".mirror.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def main() -> int:
    redact_output()
    parser = argparse.ArgumentParser(prog="python -m tasks.tracking", description=__doc__)
    parser.add_argument(
        "--follow", metavar="FLOW_RUN", help="keep up with this flow run to its end"
    )
    parser.add_argument(
        "--wait-s", type=float, default=30, help="how long to wait for DVC's record"
    )
    arguments = parser.parse_args()
    root = Path.cwd()
    config.set_environment_defaults(os.environ, root)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    with _only_mirror(root, wait=bool(arguments.follow)) as ours:
        if not ours:
            return 0
        return _run(root, arguments.follow, arguments.wait_s)


def _run(root: Path, flow_run: str | None, wait_s: float) -> int:
    from mlflow import MlflowClient

    deadline: float | None = None
    complained: set[str] = set()
    sent: Sent = {}
    while True:
        ended = flow_run is None or has_ended(root / "runs" / "flows" / f"{flow_run}.json")
        if ended and deadline is None:
            deadline = time.monotonic() + wait_s
        try:
            done = mirror_all(MlflowClient(), root, sent)
            num_open, problems = done.num_open, done.problems
        except Exception as error:  # noqa: BLE001  whatever ails MLflow must reach no one but this log
            said = redacted(str(error))[:300]
            num_open = 1
            problems = [f"MLflow did not take the figures: {type(error).__name__}: {said}"]
        for problem in problems:
            if problem not in complained:
                print(f"tracking: {problem}; the next run tries again", flush=True)
                complained.add(problem)
        if ended and not num_open:
            return 0
        if deadline is not None and time.monotonic() > deadline:
            print(f"tracking: {num_open} runs are not finished", flush=True)
            return 0
        time.sleep(FOLLOW_INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main())
