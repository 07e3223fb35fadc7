"""How a record shows on the Node: label, taints and annotation, as the patch that makes them so."""

from collections.abc import Mapping
from typing import Any

from tasks.nodes.names import (
    AT_RISK_TAINT,
    HEALTH_ANNOTATION,
    OUR_TAINTS,
    PROBATION_TAINT,
    STATE_LABEL,
    UNHEALTHY_TAINT,
)
from tasks.nodes.observed import slug
from tasks.nodes.record import Record, to_json

Json = Mapping[str, Any]
Taint = dict[str, str]


def taints_of(record: Record) -> list[Taint]:
    """Ours. None is NoExecute, which would end whatever else runs on the node, databases and names
    among it: stages are evicted one by one, each with its own grace.

    A node that failed once is the scheduler's last choice, and no more: one failure may have been the
    pod's. Kueue, where it places by topology, does not look at PreferNoSchedule.
    """
    taints = []
    if record.state == "suspect":
        causes = [incident.cause for incident in record.incidents[-1:]] or [record.cause]
        taints.append(
            {"key": UNHEALTHY_TAINT, "value": slug(causes[0]), "effect": "PreferNoSchedule"}
        )
    if record.state in ("quarantined", "draining", "repairing", "retired"):
        taints.append({"key": UNHEALTHY_TAINT, "value": slug(record.cause), "effect": "NoSchedule"})
    if record.state == "probation":
        taints.append({"key": PROBATION_TAINT, "value": "true", "effect": "NoSchedule"})
    if record.risk.at_risk:
        taints.append({"key": AT_RISK_TAINT, "value": "true", "effect": "NoSchedule"})
    return taints


def patch(node: Json, record: Record) -> dict[str, Any] | None:
    """A merge patch that only applies to this very version of the Node; None if all is so.

    The API takes the list of taints as a whole, so everybody else's are in it.
    """
    meta, spec = node["metadata"], node.get("spec") or {}
    body: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    if (meta.get("labels") or {}).get(STATE_LABEL) != record.state:
        changed["labels"] = {STATE_LABEL: record.state}
    text = to_json(record)
    if (meta.get("annotations") or {}).get(HEALTH_ANNOTATION) != text:
        changed["annotations"] = {HEALTH_ANNOTATION: text}
    present = list(spec.get("taints") or ())
    others = [taint for taint in present if taint["key"] not in OUR_TAINTS]
    ours = [taint for taint in present if taint["key"] in OUR_TAINTS]
    wanted = taints_of(record)
    if _bare(ours) != _bare(wanted):
        body["spec"] = {"taints": [*others, *wanted]}
    if not changed and not body:
        return None
    body["metadata"] = {**changed, "resourceVersion": meta["resourceVersion"]}
    return body


def _bare(taints: list[Taint]) -> list[tuple[str, str, str]]:
    """Without `timeAdded`, which the API server adds."""
    return sorted((taint["key"], taint.get("value", ""), taint["effect"]) for taint in taints)
