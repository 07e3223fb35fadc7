"""`python -m tasks.container STAGE RUN_DIR`: the first process of a stage's container.

Claims the run, starts the stage's process or, for a gang, torchrun, passes SIGTERM on, and exits
with the code of components.errors. What it knows comes from its environment and the shared volume:
it asks nothing of the cluster.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from components.contract import STAGES, Json
from components.errors import InfraError, StageError, UserError, disk_faults_typed
from components.preflight.gang import GANG_WAIT_S
from tasks import outcome
from tasks.claim import GANG, PLACES, READY, claim, holder
from tasks.key import file_digests
from tasks.local import pod_command, supervise
from tasks.outcome import Outcome
from tasks.run_dir import RunDir, read_request

POLL_S = 0.2
LAST_WORDS = Path("/dev/termination-log")
LAST_WORDS_BYTES = 4000
"""Kubernetes keeps 4096."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.container", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop_waiting)  # the first process of a container has no default
    stage, run_dir = arguments.stage, arguments.run_dir
    pod, began_at = os.environ["HEADRACE_POD"], time.time()
    index = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    try:
        with disk_faults_typed(run_dir):
            ended = _work(stage, run_dir, pod, index)
    except StageError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ended = Outcome(
            stage, "", error.kind, error.exit_code, error.message, error.hint,
            _node(), 0, began_at, time.time() - began_at, 0.0,
        )  # fmt: skip
    for line in outcome.said(ended) if not ended.ok else []:
        print(line, file=sys.stderr)
    _say_last_words(ended)
    return ended.exit_code


def _work(stage: str, run_dir: Path, pod: str, index: int) -> Outcome:
    request = read_request(run_dir)
    if not request:
        raise InfraError(
            f"{run_dir / 'request.json'} is not there",
            "is the shared volume mounted at the same path here and where the flow runs?",
        )
    _require_own_attempt(request)
    _require_same_code(request["code"])
    if index and not os.environ.get("HEADRACE_GANG"):
        return _assist(stage, run_dir, request, pod, index)
    members = _gang(run_dir, pod) if os.environ.get("HEADRACE_GANG") else [pod]
    place = claim(run_dir, pod) if index == 0 else _leaders_place(run_dir, members[0])
    if os.environ.get("HEADRACE_GANG"):
        os.environ |= {"PET_NNODES": str(len(members)), "PET_NODE_RANK": str(index)}
    run = RunDir(Path.cwd(), stage, str(request["key"]), place)
    with suppress(FileNotFoundError):  # of the pod before, in the same attempt
        if index == 0:
            (place / outcome.NAME).unlink()
    log_name = "log.txt" if index == 0 else f"log.{index}.txt"
    ended = _to_its_end(run, _command(run), log_name, leads=index == 0)
    if holder(run_dir) != members[0]:
        raise InfraError(
            f"{pod} was superseded by {holder(run_dir)}", "nothing that it wrote is used"
        )
    ended = replace(ended, attempt=request["attempt"], node=_node())
    if index == 0:
        outcome.write(place, ended)
    return ended


def _assist(
    stage: str, run_dir: Path, request: Mapping[str, Json], pod: str, index: int
) -> Outcome:
    """Compute pieces for the pod that leads. It needs no claim: what it leaves is the same whoever leads.

    It works through the run's own links, so that it follows a leader that is replaced.
    """
    folder = Path(os.environ["TMPDIR"]) / pod
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tasks.pod", stage, str(run_dir)]
    command += ["--share", f"{index}/{_num_nodes()}"]
    run = RunDir(Path.cwd(), stage, str(request["key"]), folder)
    return _to_its_end(run, command, "log.txt", leads=False)


def _to_its_end(run: RunDir, command: Sequence[str], log_name: str, *, leads: bool) -> Outcome:
    grace_s = float(os.environ.get("HEADRACE_GRACE_S", "60"))
    ended = supervise(run, command, grace_s, log_name=log_name, leads=leads)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the work is done: nothing is left to be stopped
    return ended


def _command(run: RunDir) -> list[str]:
    """torchrun for a gang, which reads its PET_* variables; else as on any machine."""
    module = ["-m", "tasks.pod", run.stage, str(run.path)]
    if os.environ.get("HEADRACE_GANG"):
        return [sys.executable, "-m", "torch.distributed.run", *module]
    if _num_nodes() > 1:
        return [sys.executable, *module, "--share", f"0/{_num_nodes()}"]
    return pod_command(run, int(os.environ.get("HEADRACE_NUM_RANKS", "1")))


def _num_nodes() -> int:
    return int(os.environ.get("HEADRACE_NUM_NODES", "1"))


def _require_own_attempt(request: Mapping[str, Json]) -> None:
    """Raise InfraError in a pod of a past attempt that begins late: its successor has the work."""
    own = os.environ.get("HEADRACE_ATTEMPT", "")
    if own and own != str(request["attempt"]):
        raise InfraError(
            f"a pod of attempt {own}, and attempt {request['attempt']} has the work", "let it end"
        )


def _require_same_code(expected: dict[str, str]) -> None:
    """Raise UserError if what is imported here is not what the key was computed of."""
    import components

    root = Path(str(components.__file__)).parents[1]
    found = file_digests(root, sorted(expected))
    changed = [path for path, digest in expected.items() if found.get(path) != digest]
    if changed:
        raise UserError(
            f"{changed[0]} in the image is not the one of the project ({len(changed)} files differ)",
            "build and push the image of this commit, or set HEADRACE_DEV=1 to mount the checkout",
        )


def _gang(run_dir: Path, pod: str) -> list[str]:
    """The names of all pods of this gang, once the launcher has seen them. Raises InfraError."""
    deadline = time.monotonic() + GANG_WAIT_S
    while time.monotonic() < deadline:
        members: list[str] = outcome.read_json(run_dir / PLACES / GANG) or []
        if pod in members:
            return members
        time.sleep(POLL_S)
    raise InfraError(f"the other pods did not come in {GANG_WAIT_S:.0f} s", "run it again")


def _leaders_place(run_dir: Path, leader: str) -> Path:
    """The folder that the leader has claimed. Raises InfraError if it does not come."""
    place, deadline = run_dir / PLACES / leader, time.monotonic() + GANG_WAIT_S
    while not (place / READY).exists():
        if time.monotonic() > deadline:
            raise InfraError(f"the leader {leader} did not come", "run it again")
        time.sleep(POLL_S)
    return place


def _stop_waiting(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what follows is to be finished
    raise InfraError("stopped by SIGTERM before it began", "run it again")


def _node() -> str:
    return os.environ.get("HEADRACE_NODE", os.uname().nodename)


def _say_last_words(ended: Outcome) -> None:
    """Leave the outcome where Kubernetes looks for a container's last words."""
    with suppress(OSError):
        if LAST_WORDS.exists():
            LAST_WORDS.write_text(last_words(ended), encoding="utf-8")


def last_words(ended: Outcome) -> str:
    """The outcome as ASCII JSON of at most LAST_WORDS_BYTES: what is too long of its texts is cut."""
    words = asdict(ended)
    text = json.dumps(words)
    while len(text) > LAST_WORDS_BYTES:
        longest = max("message", "hint", key=lambda name: len(words[name]))
        words[longest] = words[longest][: len(words[longest]) * 3 // 4]
        text = json.dumps(words)
    return text


if __name__ == "__main__":
    sys.exit(main())
