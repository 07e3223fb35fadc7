"""Nodes and pods as the API server gives them, and what is seen of one."""

import json
from pathlib import Path
from typing import Any

from components.preflight.report import Finding, Report, to_json
from components.preflight.stamp import VOUCHED_FOR
from tasks.nodes.instants import rfc3339
from tasks.nodes.names import GPU_RESOURCE, POOL_LABEL, SAMPLES_ANNOTATION, STAGE_LABEL
from tasks.nodes.observed import DearPass, Failure, Look, Observations, PodRef
from tasks.nodes.policy import load_policy
from tasks.nodes.record import Evidence, Incident
from tasks.nodes.ring import AgentWord, word_json
from tasks.nodes.risk import Sample

POLICY = load_policy(Path(__file__).parents[3] / "k8s" / "nodes.yaml")
STATES = POLICY.states
DEAR_HOURS = {"default": 24.0, "h100-sxm": 12.0}
NOW = 1_800_000_000
HOUR = 3600
DAY = 86400

POD = PodRef("team", "st-pretrain-a0-0", "uid-0", is_ending=False)


def failure(name: str, at: int, fatal: bool = False, cause: str = "ecc") -> Failure:
    evidence = Evidence(cause, f"{cause} is bad", fatal)
    return Failure(Incident(name, at, fatal, cause), (evidence,))


def seen(*failures: Failure, **given: Any) -> Observations:
    return Observations(failures=failures, **given)


def passed(at: int, hours: int = 24) -> DearPass:
    return DearPass(at, at + hours * HOUR)


def good(at: int, dear_ok: bool = True) -> Look:
    return Look(at, ok=True, failing=False, dear_ok=dear_ok)


def bad(at: int, cause: str = "ecc") -> Look:
    return Look(at, ok=False, failing=True, dear_ok=False, cause=cause)


def report(
    *findings: Finding, at: float = NOW, sku: str = "h100-sxm", num_gpus_measured: int = 0
) -> Report:
    return Report("node-a", at, sku, findings, 0.1, num_gpus_measured=num_gpus_measured)


OK = Finding("ecc", "ok")
SOFT = Finding("disk_space", "fail", "98% used", value=98, limit=95.0, unit="%")
FATAL = Finding("xid", "fail", "GPU 3: Xid 79", fatal=True, device=3, value=79)
DEAR = tuple(Finding(check, "ok", "fast") for check in VOUCHED_FOR)


def node(
    name: str = "node-a",
    word: AgentWord | None = None,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    version: str = "7",
    gpus: int | None = None,
) -> dict[str, Any]:
    said = {SAMPLES_ANNOTATION: word_json(word)} if word is not None else {}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "resourceVersion": version,
            "labels": {POOL_LABEL: "h100"} if labels is None else labels,
            "annotations": {**said, **(annotations or {})},
        },
        "spec": {"taints": taints} if taints else {},
        "status": {"capacity": {"cpu": "8"} | ({GPU_RESOURCE: str(gpus)} if gpus else {})},
    }


def word(
    *findings: Finding,
    at: float = NOW,
    failing_since_at: int | None = None,
    samples: tuple[Sample, ...] = (),
) -> AgentWord:
    return AgentWord(report(*findings, at=at), failing_since_at, samples)


def pod(
    name: str,
    node_name: str = "node-a",
    phase: str = "Running",
    exit_code: int | None = None,
    message: Any = None,
    finished_at: int = NOW - 60,
    ending: bool = False,
) -> dict[str, Any]:
    """With `exit_code` its pre-check has ended, and left `message` (a Report, a text or nothing)."""
    text = message if not isinstance(message, Report) else _json(message)
    status: dict[str, Any] = {"phase": phase}
    if exit_code is not None:
        ended = {"exitCode": exit_code, "finishedAt": rfc3339(finished_at)}
        if text is not None:
            ended["message"] = text
        status["initContainerStatuses"] = [{"name": "preflight", "state": {"terminated": ended}}]
    meta = {"name": name, "namespace": "team", "uid": f"uid-of-{name}"}
    if ending:
        meta["deletionTimestamp"] = rfc3339(NOW)
    return {
        "metadata": {**meta, "labels": {STAGE_LABEL: "pretrain"}},
        "spec": {"nodeName": node_name},
        "status": status,
    }


def recorded(name: str) -> dict[str, Any]:
    """`node`, or `pod`, one of a stage after its pre-check: whole, as a real API server gave it."""
    text = (Path(__file__).parent / "recorded" / f"{name}.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def _json(message: Report) -> str:
    return json.dumps(to_json(message))
