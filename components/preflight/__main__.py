"""`python -m components.preflight`: is this node fit for the stage that is about to start?

Exit 0: yes, perhaps with warnings. 69: no, and the work belongs on another node. 75: that could not
be told (a peer of the gang never came, the shared volume is full). 64: asked wrongly.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from components.errors import InfraError, NodeUnhealthy, StageError, UserError
from components.preflight.gang import meeting_of
from components.preflight.inspection import Expected, inspect
from components.preflight.kernel_log import KMSG
from components.preflight.live import Live
from components.preflight.readings import Measurements, Readings, Source
from components.preflight.recorded import Recording, load, save
from components.preflight.report import Finding, Report, Verdict
from components.preflight.stamp import ask_stamp, holds, stamp_finding
from components.preflight.table import table
from components.preflight.termination import compact
from components.preflight.thresholds import SKUS, Sku, Thresholds, load_thresholds

EXIT_CODES: dict[Verdict, int] = {
    "ok": 0,
    "warn": 0,
    "fail": NodeUnhealthy.exit_code,
    "inconclusive": InfraError.exit_code,
}
TERMINATION_LOG = Path("/dev/termination-log")


@dataclass
class Keeping:
    """A source that remembers what another one said."""

    source: Source
    readings: Readings | None = None
    measurements: Measurements = field(default_factory=Measurements)

    def read(self) -> Readings:
        self.readings = self.source.read()
        return self.readings

    def measure(self, readings: Readings, sku: Sku, checks: Collection[str]) -> Measurements:
        self.measurements = self.source.measure(readings, sku, checks)
        return self.measurements


class Parser(argparse.ArgumentParser):
    """A wrong command line is the user's error, with its exit code."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}", "see --help")


def parser(environment: Mapping[str, str]) -> Parser:
    """Every option; what Kubernetes tells by the environment is a default."""
    made = Parser(prog="python -m components.preflight", description=__doc__)
    add: Any = made.add_argument
    add("--gpus", type=int, help="how many the pod asked for; 0 leaves the node's GPUs alone")
    add("--kind", help="which: a key of skus.yaml or a part of the device's name")
    add("--node", default=environment.get("HEADRACE_NODE") or platform.node())
    add("--node-ip", default=environment.get("HEADRACE_NODE_IP"), help="where the node agent is")
    add("--commit", default=environment.get("HEADRACE_COMMIT"), help="of the code in this image")
    add("--local", type=Path, action="append", help="the node's own disk (default: TMPDIR)")
    add("--shared", type=Path, action="append", default=[], help="a volume other nodes see too")
    add("--dear", choices=("auto", "always", "never"), default="auto", help="checks that cost time")
    add("--gang", action="store_true", help="sum with the other nodes of the job (PET_* variables)")
    add("--members", type=Path, metavar="FILE", help="with --gang: a JSON list of its pods' names")
    add("--skus", type=Path, default=SKUS, help="thresholds of your own")
    add("--kernel-log", type=Path, default=KMSG)
    add("--termination-log", type=Path, help=f"default: {TERMINATION_LOG} where there is one")
    add("--record", type=Path, metavar="FILE", help="also keep what this machine said")
    add("--replay", type=Path, metavar="FILE", help="judge a recording instead of this machine")
    return made


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> Report:
    """Read, judge, measure, and keep a recording if that is asked for."""
    thresholds = load_thresholds(asked.skus)
    dear, stamp = _dear(asked, thresholds)
    source = Keeping(load(asked.replay) if asked.replay else _live(asked, environment))
    report = inspect(
        source,
        thresholds,
        dear,
        gang=asked.gang,
        expected=Expected(asked.gpus, asked.kind),
        commit=asked.commit,
    )
    if asked.record and source.readings is not None:
        note = f"said by {asked.node}, {time.strftime('%Y-%m-%d', time.gmtime(report.at))}"
        save(Recording(note, False, source.readings, source.measurements), asked.record)
    return replace(report, findings=(*report.findings, *stamp))


def _dear(asked: argparse.Namespace, thresholds: Thresholds) -> tuple[bool, list[Finding]]:
    if asked.dear != "auto":
        return asked.dear == "always", []
    if not asked.node_ip:
        why = "no node agent to ask (HEADRACE_NODE_IP is not set): dear checks are made"
        return True, [Finding("stamp", "skipped", why)]
    stamp = ask_stamp(asked.node_ip)
    longest = max(sku.dear_hours for sku in thresholds.skus.values())
    trusted = holds(stamp, time.time(), longest)
    return not trusted, [stamp_finding(stamp, trusted)]


def _live(asked: argparse.Namespace, environment: Mapping[str, str]) -> Live:
    gang = meeting_of(environment, asked.members) if asked.gang else None
    local = tuple(asked.local or (Path(tempfile.gettempdir()),))
    return Live(asked.node, local, tuple(asked.shared), gang, asked.kernel_log)


def write_termination(report: Report, path: Path | None) -> None:
    """Where Kubernetes looks for it. A report that cannot be left there was still printed."""
    target = path or (TERMINATION_LOG if TERMINATION_LOG.exists() else None)
    if target is None:
        return
    try:
        target.write_text(compact(report), encoding="utf-8")
    except OSError as error:
        print(f"{target}: the report could not be left there: {error.strerror}", file=sys.stderr)


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Print the table, leave the report, return the exit code."""
    try:
        asked = parser(environment).parse_args(arguments)
        report = run(asked, environment)
    except StageError as error:
        print(error.line, file=sys.stderr)
        return error.exit_code
    print(table(report), flush=True)
    write_termination(report, asked.termination_log)
    return EXIT_CODES[report.verdict]


def _stop(*_: object) -> NoReturn:
    """The first process of a container has no default for a signal."""
    sys.exit(InfraError.exit_code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(sys.argv[1:], os.environ))
