"""What the agent writes on its Node: condition and annotation, in one patch of the status.

The status is all it may write. The API server takes the annotation with it, so that nobody sees the
one without the other.
"""

from collections.abc import Mapping
from typing import Any

from components.preflight.report import Report
from tasks.nodes.instants import rfc3339
from tasks.nodes.names import CONDITION, SAMPLES_ANNOTATION
from tasks.nodes.observed import evidence_of, plain
from tasks.nodes.ring import AgentWord, word_json

MAX_MESSAGE = 500

Json = Mapping[str, Any]

STATUS_OF_VERDICT = {"ok": "True", "warn": "True", "fail": "False", "inconclusive": "Unknown"}


def essence(report: Report) -> tuple[Any, ...]:
    """What of a report is news when it changes; figures that move at every look are none."""
    failing = {(f.check, f.device, f.fatal) for f in report.findings if f.status == "fail"}
    return report.verdict, frozenset(failing)


def status_patch(node: Json, word: AgentWord, now: int) -> dict[str, Any]:
    """A merge patch that only applies to this very version of the Node.

    A merge patch takes the list of conditions as a whole, so everybody else's are in it.
    """
    conditions = (node.get("status") or {}).get("conditions") or []
    before = next((found for found in conditions if found["type"] == CONDITION), None)
    others = [found for found in conditions if found["type"] != CONDITION]
    ours = condition(word.report, now, before)
    meta = {
        "resourceVersion": node["metadata"]["resourceVersion"],
        "annotations": {SAMPLES_ANNOTATION: word_json(word)},
    }
    return {"metadata": meta, "status": {"conditions": [*others, ours]}}


def condition(report: Report, now: int, before: Json | None) -> dict[str, str]:
    status = STATUS_OF_VERDICT[report.verdict]
    reason, message = _said(report)
    is_same = before is not None and before["status"] == status
    since = before["lastTransitionTime"] if before is not None and is_same else rfc3339(now)
    return {
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "lastHeartbeatTime": rfc3339(now),
        "lastTransitionTime": since,
    }


def _said(report: Report) -> tuple[str, str]:
    """Reason, in one word, and message."""
    if report.verdict == "fail":
        reason = "FatalCheckFailed" if report.fatal else "CheckFailed"
        evidence = evidence_of(report.findings)
        return reason, "; ".join(found.message or found.check for found in evidence)
    if report.verdict == "inconclusive":
        reason, status = "ChecksInconclusive", "inconclusive"
    else:
        reason, status = "ChecksPass", "warn"
    notes = [plain(f.message) for f in report.findings if f.status == status]
    return reason, "; ".join(notes) or f"{len(report.findings)} checks pass"
