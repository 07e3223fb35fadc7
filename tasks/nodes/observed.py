"""What can be seen of a node at one time, read from the API's own JSON of the Node and its pods.

Pods and annotations are written by others: what cannot be read counts for what is sure, no more.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from components.errors import DataError, NodeUnhealthy
from components.preflight.report import Finding, Report, from_json
from components.preflight.stamp import dear_until
from components.preflight.thresholds import CPU, DEFAULT
from tasks.nodes.instants import parsed
from tasks.nodes.names import (
    GPU_RESOURCE,
    PREFLIGHT_CONTAINER,
    REPAIRED_ANNOTATION,
    RESET_ANNOTATION,
)
from tasks.nodes.policy import Policy
from tasks.nodes.record import MAX_EVIDENCE, MAX_TEXT, Evidence, Incident
from tasks.nodes.ring import AgentWord, read_word
from tasks.nodes.risk import Sample

Json = Mapping[str, Any]


@dataclass(frozen=True)
class PodRef:
    namespace: str
    name: str
    uid: str
    is_ending: bool


@dataclass(frozen=True)
class Failure:
    incident: Incident
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class DearPass:
    """The dear checks have run and passed."""

    at: int
    until: int
    """How long that holds."""


@dataclass(frozen=True)
class Look:
    """The agent's latest report, in what matters for a decision."""

    at: int
    ok: bool
    """Everything that could be checked passed; neither failing nor ok is inconclusive."""
    failing: bool
    dear_ok: bool
    cause: str = ""


@dataclass(frozen=True)
class Observations:
    may_quarantine: bool = True
    """Whether the breaker lets this node go now."""
    failures: tuple[Failure, ...] = ()
    dear_passes: tuple[DearPass, ...] = ()
    report: Look | None = None
    """None where no agent has spoken, or not for long."""
    stage_pods: tuple[PodRef, ...] = ()
    """Those that have not ended."""
    repaired: str = ""
    reset: str = ""
    samples: tuple[Sample, ...] = ()


def observe(
    node: Json, pods: Iterable[Json], now: int, policy: Policy, dear_hours: Mapping[str, float]
) -> Observations:
    """`pods` are the stage pods bound to `node`; `dear_hours` how long passed dear checks hold, by SKU."""
    annotations = node["metadata"].get("annotations") or {}
    num_gpus = gpus_counted(node) or 0
    word = read_word(annotations)
    # GPUs that the agent sees and nobody counts: the device plugin is away, or hands out slices.
    is_uncounted = not num_gpus and word is not None and word.report.sku != CPU
    failures, passes = [], []
    alive = []
    for pod in pods:
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            alive.append(_pod_ref(pod))
        ended = _preflight_end(pod)
        if ended is None:
            continue
        report = _report(ended.get("message"))
        at = parsed(ended["finishedAt"])
        if ended["exitCode"] == NodeUnhealthy.exit_code:
            failures.append(_pod_failure(pod, at, report))
        elif ended["exitCode"] == 0 and report is not None and not is_uncounted:
            passes += _dear_passes(report, at, dear_hours, num_gpus)
    look = None
    if word is not None and now - word.report.at <= policy.agent.silent_after_s:
        # The agent sees all GPUs, and fails if those are fewer than Kubernetes counts, which where
        # pods share them is a multiple.
        held = _dear_passes(word.report, int(word.report.at), dear_hours, min(num_gpus, 1))
        look = _look(word.report, bool(held))
        passes += held
        if look.failing:
            failures.append(_agent_failure(word, policy.states.soft_repeat_s))
    return Observations(
        failures=tuple(failures),
        dear_passes=tuple(passes),
        report=look,
        stage_pods=tuple(alive),
        repaired=annotations.get(REPAIRED_ANNOTATION, ""),
        reset=annotations.get(RESET_ANNOTATION, ""),
        samples=word.samples if word is not None else (),
    )


def gpus_counted(node: Json) -> int | None:
    """How many GPUs Kubernetes counts on the node; None where it does not speak of them."""
    counted = ((node.get("status") or {}).get("capacity") or {}).get(GPU_RESOURCE, "")
    return int(counted) if counted.isdigit() else None


def _dear_passes(
    report: Report, at: int, dear_hours: Mapping[str, float], num_gpus: int
) -> list[DearPass]:
    """One or none. Nobody's clock makes it last longer than from the time it was reported."""
    hours = dear_hours.get(report.sku, dear_hours[DEFAULT])
    until = dear_until(replace(report, at=min(report.at, at)), hours, num_gpus)
    return [] if until is None else [DearPass(at, int(until))]


def slug(text: str) -> str:
    """As a label's or taint's value: at most 63 letters, digits, `-`, `_` and `.`, letters at the ends."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.") or "unknown"


def evidence_of(findings: Iterable[Finding]) -> tuple[Evidence, ...]:
    """The failed findings, fatal ones first, each on one line without control characters."""
    failed = [finding for finding in findings if finding.status == "fail"]
    failed.sort(key=lambda finding: not finding.fatal)
    return tuple(
        Evidence(
            slug(finding.check),
            plain(finding.message),
            finding.fatal,
            finding.device,
            _value(finding.value),
            _value(finding.limit),
            plain(finding.unit),
        )
        for finding in failed[:MAX_EVIDENCE]
    )


def plain(text: str) -> str:
    """Printable and short: what a container wrote must not steer the terminal that shows it."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_TEXT]


def _value(value: float | str | None) -> float | str | None:
    return plain(value) if isinstance(value, str) else value and float(value)


def _pod_ref(pod: Json) -> PodRef:
    meta = pod["metadata"]
    return PodRef(meta["namespace"], meta["name"], meta["uid"], "deletionTimestamp" in meta)


def _preflight_end(pod: Json) -> Json | None:
    for status in pod.get("status", {}).get("initContainerStatuses") or ():
        if status["name"] == PREFLIGHT_CONTAINER:
            ended: Json | None = status.get("state", {}).get("terminated")
            return ended if ended and ended.get("finishedAt") else None
    return None


def _report(message: str | None) -> Report | None:
    try:
        return from_json(json.loads(message or ""))
    except (DataError, ValueError):
        return None


def _pod_failure(pod: Json, at: int, report: Report | None) -> Failure:
    """A pre-check that exits 69 without a report that can be read is a failure, not a fatal one."""
    evidence = evidence_of(report.findings) if report is not None else ()
    if not evidence:
        said = Evidence("preflight", "the pre-check refused the node without a readable report")
        evidence = (said,)
    identity = f"pod:{pod['metadata']['uid']}"
    return Failure(Incident(identity, at, evidence[0].fatal, evidence[0].check), evidence)


def _look(report: Report, is_dear: bool) -> Look:
    evidence = evidence_of(report.findings)
    return Look(
        at=int(report.at),
        ok=report.verdict in ("ok", "warn"),
        failing=bool(evidence),
        dear_ok=is_dear and report.verdict in ("ok", "warn"),
        cause=evidence[0].check if evidence else "",
    )


def _agent_failure(word: AgentWord, repeat_s: int) -> Failure:
    """What the agent goes on seeing counts once, and again after each `repeat_s`; turned fatal, at once."""
    evidence = evidence_of(word.report.findings)
    at = int(word.report.at)
    since_at = min(word.failing_since_at or at, at)
    fatal = "fatal" if evidence[0].fatal else "soft"
    identity = f"agent:{since_at}:{(at - since_at) // repeat_s}:{fatal}"
    return Failure(Incident(identity, at, evidence[0].fatal, evidence[0].check), evidence)
