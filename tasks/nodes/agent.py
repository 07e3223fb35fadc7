"""`python -m tasks.nodes.agent`: inspects its node all the time and reports a node condition.

It judges nothing beyond that: the controller alone decides what a report means for the node. Needs
NODE_NAME in the environment. Answers the pre-checks of the pods beside it on NODE_IP, or without
one on all addresses of its own network: a pod's, to which a hostPort leads.
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.errors import InfraError, StageError, UserError
from components.preflight.inspection import Expected, inspect
from components.preflight.kernel_log import KMSG
from components.preflight.live import NVML_TIMEOUT_S, Live
from components.preflight.machine import within
from components.preflight.readings import NO_ANSWER, Measurements, Readings, Source
from components.preflight.report import DEAR_CHECKS, Report
from components.preflight.stamp import AGENT_PORT
from components.preflight.thresholds import SKUS, Sku, Thresholds, load_thresholds
from components.redaction import redacted
from tasks.cluster.api import Api, Away, Object, Refused, connect
from tasks.nodes import calls
from tasks.nodes.condition import essence, status_patch
from tasks.nodes.corrected import corrected_errors
from tasks.nodes.names import POOL_LABEL, PRODUCT_LABEL, REPLICAS_LABEL
from tasks.nodes.observed import gpus_counted
from tasks.nodes.policy import PATH, Policy, load_policy
from tasks.nodes.record import Record, record_of
from tasks.nodes.ring import AgentWord, next_word, read_word
from tasks.nodes.risk import Sample
from tasks.nodes.sampling import merged, sample_of
from tasks.nodes.stamp_server import serve

LOG = logging.getLogger("headrace.agent")
MAX_TRIES = 5
"""Of a write against a Node that others write at the same time."""


@dataclass(frozen=True)
class Read:
    """Readings that are there already, as a source that can still measure."""

    readings: Readings
    source: Source

    def read(self) -> Readings:
        return self.readings

    def measure(self, readings: Readings, sku: Sku, checks: Collection[str]) -> Measurements:
        return self.source.measure(readings, sku, checks)


class Agent:
    """`look` is one inspection and what must be written of it."""

    def __init__(
        self,
        api: Api,
        name: str,
        source: Source,
        thresholds: Thresholds,
        policy: Policy,
        corrected: Callable[[], int | None] = corrected_errors,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api, self._name, self._policy = api, name, policy
        self._source, self._thresholds = source, thresholds
        self._corrected, self._clock = corrected, clock
        self._looks: list[Sample] = []
        """Since the last sample on the Node."""
        self._written: tuple[Any, ...] = ()
        self._written_at = 0.0
        self._stamp_until = 0
        self._has_seen_gpus = False

    def stamp(self) -> int | None:
        """Unix seconds; None if the dear checks must be made."""
        return self._stamp_until if self._stamp_until > self._clock() else None

    def look(self) -> Report | None:
        """The report; None while the controller has not answered the last one yet.

        Raises Refused and Away, and InfraError where another container has to look.
        """
        node = calls.read_node(self._api, self._name)
        record, word = _known(node, int(self._clock()))
        is_asked = record.state == "repairing" and record.repair_at is not None
        if is_asked and word is not None and _answers(word.report, record, self._recently()):
            return None
        readings = self._source.read()
        # A driver that hangs may begin to between two questions: this one is not answered then.
        corrected = within(NVML_TIMEOUT_S, self._corrected) if readings.gpus else None
        self._looks.append(sample_of(readings, corrected))
        source, expected = Read(readings, self._source), expected_of(node, self._thresholds)
        expected = replace(expected, repaired_at=record.repaired_at or None)
        report = inspect(source, self._thresholds, dear=is_asked, expected=expected)
        self._require_same_driver(readings, report)
        self._stamp_until = 0 if report.verdict == "fail" else record.dear_ok_until
        if self._is_due(report, word, is_asked):
            self._write(node, report)
        return report

    def _require_same_driver(self, readings: Readings, report: Report) -> None:
        """Raise InfraError if NVML as a whole fails, has answered this process before, and nothing
        else says that the node is to be drained.

        The driver was replaced on the node, whose library a container has from its start; or systemd
        was reloaded, which may take a container's devices away. Neither is a fault of the node: what a
        new container is told, is reported. One whose driver does not answer could not be ended.
        """
        fault = readings.gpu_fault or ""
        self._has_seen_gpus |= bool(readings.gpus)
        if self._has_seen_gpus and fault and not (fault.startswith(NO_ANSWER) or report.fatal):
            raise InfraError(
                f"{fault}, and it answered before: this container's driver or devices are gone",
                "let it be started again, as Kubernetes does: a new container gets them anew",
            )

    def _recently(self) -> float:
        """A report of a dear look is not replaced before the controller has had time to read it."""
        return self._clock() - self._policy.agent.silent_after_s / 2

    def _is_due(self, report: Report, word: AgentWord | None, is_asked: bool) -> bool:
        waited_s = self._clock() - self._written_at
        has_news = essence(report) != self._written or is_asked
        return has_news or waited_s >= self._policy.agent.heartbeat_s or self._sample_due(word)

    def _sample_due(self, word: AgentWord | None) -> bool:
        if word is None or not word.samples:
            return True
        return self._clock() - word.samples[-1].at >= self._policy.agent.sample_every_s

    def _write(self, node: Object, report: Report) -> None:
        """Others write the Node too: on a conflict it is read and the patch made again."""
        for _ in range(MAX_TRIES):
            word = read_word(node["metadata"].get("annotations") or {})
            is_sampled = self._sample_due(word)
            sample = merged(self._looks) if is_sampled else None
            new = next_word(word, report, sample, self._policy.agent.max_samples)
            try:
                body = status_patch(node, new, int(self._clock()))
                calls.patch_node_status(self._api, self._name, body)
            except Refused as no:
                if no.status != calls.CONFLICT:
                    raise
                node = calls.read_node(self._api, self._name)
                continue
            self._written, self._written_at = essence(report), self._clock()
            if is_sampled:
                self._looks = []
            return
        LOG.warning("%s changes too fast to be written; tried again at the next look", self._name)


def expected_of(node: Object, thresholds: Thresholds) -> Expected:
    """What the Node says of its GPUs; a pool whose name names no kind says nothing of theirs."""
    labels = node["metadata"].get("labels") or {}
    pool = labels.get(POOL_LABEL, "")
    is_sliced = "-MIG-" in labels.get(PRODUCT_LABEL, "")
    return Expected(
        kind=pool if pool and thresholds.knows(pool) else None,
        on_node=gpus_counted(node),
        may_share=is_sliced or labels.get(REPLICAS_LABEL) != "1",
    )


def _known(node: Object, now: int) -> tuple[Record, AgentWord | None]:
    meta = node["metadata"]
    annotations = meta.get("annotations") or {}
    return record_of(meta.get("labels") or {}, annotations, now), read_word(annotations)


def _answers(report: Report, record: Record, not_before: float) -> bool:
    """Whether this report is the one that the reported repair waits for."""
    is_dear = any(finding.check in DEAR_CHECKS for finding in report.findings)
    return is_dear and report.at >= max(record.repair_at or 0, not_before)


def run(agent: Agent, interval_s: float, stop: threading.Event) -> None:
    """Until `stop`. A server that is away is asked again at the next look; missing rights end it."""
    while not stop.is_set():
        try:
            agent.look()
        except Away as away:
            LOG.warning("Kubernetes does not answer: %s", away)
        except Refused as no:
            if no.status in calls.NO_RIGHTS or no.status == calls.GONE:
                with calls.errors_typed("reporting on this node"):
                    raise
            LOG.warning("Kubernetes refuses: %s (%s)", no.message, no.status)
        stop.wait(interval_s)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.nodes.agent", description=__doc__)
    parser.add_argument("--policy", type=Path, default=PATH, help=f"default {PATH}")
    parser.add_argument("--skus", type=Path, default=SKUS, help="the pre-check's thresholds")
    parser.add_argument("--local", type=Path, action="append", help="the node's disks that matter")
    parser.add_argument("--kernel-log", type=Path, default=KMSG)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        name, address = os.environ.get("NODE_NAME", ""), os.environ.get("NODE_IP", "")
        if not name:
            raise UserError("NODE_NAME is not set", "the DaemonSet of k8s/ sets it")
        policy = load_policy(arguments.policy)
        local = tuple(arguments.local or (Path(tempfile.gettempdir()),))
        source = Live(name, local, (), None, arguments.kernel_log)
        agent = Agent(connect(), name, source, load_thresholds(arguments.skus), policy)
        try:
            serve((address, AGENT_PORT), agent.stamp)
        except OSError as error:
            raise UserError(
                f"port {AGENT_PORT} of {address or 'all addresses'}: {error.strerror}",
                "one agent runs on a node, and NODE_IP is that node's own address",
            ) from error
        run(agent, policy.agent.interval_s, threading.Event())
    except StageError as error:
        print(redacted(error.line), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
