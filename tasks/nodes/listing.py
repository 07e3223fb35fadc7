"""What `headrace nodes` shows: pure, from the API's JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from tasks.nodes.instants import rfc3339
from tasks.nodes.names import State
from tasks.nodes.plan import pool_of
from tasks.nodes.record import Record, record_of
from tasks.nodes.ring import read_word

Json = Mapping[str, Any]

COLOUR_OF: dict[State, str] = {
    "healthy": "green",
    "suspect": "yellow",
    "quarantined": "red",
    "draining": "red",
    "repairing": "magenta",
    "probation": "cyan",
    "retired": "bright_black",
}


@dataclass(frozen=True)
class Row:
    node: str
    pool: str
    state: State
    held_by_breaker: bool
    since: str
    reason: str
    risk: float
    at_risk: bool
    stage_pods: tuple[str, ...]
    agent_age_s: int | None
    """Since the agent's last report; None where none has reported."""
    record: Record

    def as_json(self) -> dict[str, Any]:
        shown = {name: value for name, value in asdict(self).items() if name != "record"}
        return {
            **shown,
            "evidence": [asdict(found) for found in self.record.evidence],
            "risk_terms": dict(self.record.risk.terms),
            "dear_ok_until": (
                rfc3339(self.record.dear_ok_until) if self.record.dear_ok_until else None
            ),
            "history": history(self.record),
        }


def rows(nodes: Iterable[Json], pods: Iterable[Json], now: int) -> list[Row]:
    """By pool and name."""
    of_node: dict[str, list[str]] = {}
    for pod in pods:
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            of_node.setdefault(pod.get("spec", {}).get("nodeName", ""), []).append(name)
    listed = [_row(node, of_node.get(node["metadata"]["name"], []), now) for node in nodes]
    return sorted(listed, key=lambda row: (row.pool, row.node))


def _row(node: Json, pods: list[str], now: int) -> Row:
    meta = node["metadata"]
    annotations = meta.get("annotations") or {}
    record, word = record_of(meta.get("labels") or {}, annotations, now), read_word(annotations)
    return Row(
        node=meta["name"],
        pool=pool_of(node),
        state=record.state,
        held_by_breaker=record.held_since_at is not None,
        since=rfc3339(record.since_at),
        reason=record.reason,
        risk=record.risk.score,
        at_risk=record.risk.at_risk,
        stage_pods=tuple(sorted(pods)),
        agent_age_s=now - int(word.report.at) if word is not None else None,
        record=record,
    )


def table(listed: Iterable[Row]) -> Table:
    """Texts come from annotations that others can write, so they are taken as they are, not as markup."""
    columns = ("node", "pool", "state", "since", "reason", "agent", "risk", "stage pods")
    shown = Table(*columns, box=None)
    for row in listed:
        state = f"{row.state}, held by the breaker" if row.held_by_breaker else row.state
        risk = f"{row.risk:.2f}" + (", at risk" if row.at_risk else "")
        shown.add_row(
            *(Text(text) for text in (row.node, row.pool)),
            Text(state, style=COLOUR_OF[row.state]),
            *(Text(text) for text in (row.since, row.reason, _age(row.agent_age_s), risk)),
            Text(str(len(row.stage_pods))),
        )
    return shown


def _age(seconds: int | None) -> str:
    """In its largest unit, rounded down."""
    if seconds is None:
        return "none"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(0, seconds)} s"


def history(record: Record) -> list[dict[str, str]]:
    """Oldest first."""
    return [
        {"at": rfc3339(gone.at), "from": gone.before, "to": gone.to, "why": gone.why}
        for gone in record.history
    ]


def history_lines(row: Row) -> list[str]:
    """All that is known of one node, for people."""
    lines = [
        f"{gone['at']}  {gone['from']} -> {gone['to']}: {gone['why']}"
        for gone in history(row.record)
    ]
    evidence = [
        f"evidence: {found.check}{'' if found.device is None else f', GPU {found.device}'}"
        f"{', fatal' if found.fatal else ''}: {found.message}"
        for found in row.record.evidence
    ]
    terms = [f"{name} {term:g}" for name, term in row.record.risk.terms]
    risk = f"risk {row.risk:g}" + (f": {', '.join(terms)}" if terms else "")
    return [*(lines or [f"{row.node} has no history"]), *evidence, risk]
