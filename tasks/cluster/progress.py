"""What a Job's launcher tells: the stage's log, where the Job is, and what the cluster warns of.

`job.json` in the run's folder has the same for a page; and how far the log was told, so that a
launcher that comes later goes on there. One that is killed after it has told something and before it
has noted that leaves the same to be told once more: nothing is left out.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks import outcome
from tasks.cluster.situation import Situation
from tasks.outcome import Outcome
from tasks.run_dir import RunDir

NAME = "job.json"
MAX_HISTORY = 200


class JobProgress:
    def __init__(self, run: RunDir, job: str) -> None:
        self._run, self._path = run, run.path / NAME
        self._stage = run.stage
        known = read(run.path)
        is_same = known.get("job") == job
        self._told: dict[str, Any] = {
            "job": job,
            "history": known.get("history", []),
            "log_bytes": known.get("log_bytes", 0),
            "events": known.get("events", []) if is_same else [],
        }
        self._shown = self._told["history"][-1][1] if is_same and self._told["history"] else ""

    def say(self, text: str) -> None:
        """One line for whoever watches, and for the record."""
        _print(f"{self._stage}: {text}\n".encode())
        history = self._told["history"]
        history.append([round(time.time(), 3), text])
        del history[:-MAX_HISTORY]
        self._keep()

    def show(self, now: Situation) -> None:
        """Say where the Job is, if that has changed."""
        text = str(now)
        if text != self._shown:
            self._shown = text
            self.say(text)

    def event(self, uid: str, reason: str, message: str) -> None:
        """Say an event of the cluster, once."""
        if uid not in self._told["events"]:
            self._told["events"].append(uid)
            self.say(f"{reason}: {(message.splitlines() or [''])[0][:300]}")

    def relay(self) -> None:
        """Print what the log got since the last time.

        On a network's file system it may be out of reach while one pod takes it over from another.
        """
        with suppress(OSError), self._run.log.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._told["log_bytes"]:  # begun anew
                self._told["log_bytes"] = 0
            file.seek(self._told["log_bytes"])
            new = file.read()
            if new:
                _print(new)
                self._told["log_bytes"] += len(new)
                self._keep()

    def end(self, ended: Outcome) -> None:
        self.say(ended.kind if not ended.ok else f"done in {ended.elapsed_s:.0f} s on {ended.node}")

    def _keep(self) -> None:
        with suppress(OSError):  # a full volume must not end what goes well
            outcome.write_json(self._path, self._told)


def read(run_dir: Path) -> dict[str, Any]:
    """What was told of the run's Job; empty if it has none."""
    return outcome.read_json(run_dir / NAME) or {}


def _print(text: bytes) -> None:
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    except OSError:  # nobody reads any more: the log has it, and our end must not fail for it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
