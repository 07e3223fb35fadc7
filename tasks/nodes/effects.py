"""What must be done about a node besides writing its record, and the words for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tasks.nodes.instants import span
from tasks.nodes.observed import PodRef
from tasks.nodes.policy import Breaker
from tasks.nodes.record import Record

ALARMING = ("suspect", "quarantined", "draining", "retired")


@dataclass(frozen=True)
class Evict:
    """Ask for the pod's end with its own grace period; asked again until it has begun to end."""

    pod: PodRef


@dataclass(frozen=True)
class Tell:
    """An Event on the node, once."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


Effect = Evict | Tell


def effects_of(
    before: Record, after: Record, pods: Iterable[PodRef], breaker: Breaker
) -> tuple[Effect, ...]:
    """What to tell is in the difference; what to evict in the state, for it may have been missed."""
    effects: list[Effect] = []
    if after.state != before.state:
        effects.append(_moved(after))
    if after.held_since_at is not None and before.held_since_at is None:
        effects.append(Tell("Warning", "HeldByBreaker", _held(after, breaker)))
    if after.risk.at_risk != before.risk.at_risk:
        effects.append(_risk(after))
    if after.state in (
        "draining",
        "repairing",
    ):  # the scheduler may have been quicker than the taint
        effects += [Evict(pod) for pod in pods if not pod.is_ending]
    return tuple(effects)


def _moved(record: Record) -> Tell:
    is_alarming = record.state in ALARMING
    said = f" ({record.evidence[0].message})" if is_alarming and record.evidence else ""
    kind: Literal["Normal", "Warning"] = "Warning" if is_alarming else "Normal"
    return Tell(kind, f"Node{record.state.capitalize()}", record.reason + said)


def _held(record: Record, breaker: Breaker) -> str:
    return (
        f"not quarantined, though {record.incidents[-1].cause} failed: the breaker lets at most "
        f"max({breaker.at_least}, {breaker.max_fraction:.0%}) of a pool's nodes go within "
        f"{span(breaker.window_s)}; so many failures at once want a person"
    )


def _risk(record: Record) -> Tell:
    if not record.risk.at_risk:
        return Tell("Normal", "NodeNoLongerAtRisk", f"risk {record.risk.score:g}")
    terms = ", ".join(f"{name} {term:g}" for name, term in record.risk.terms)
    return Tell("Warning", "NodeAtRisk", f"risk {record.risk.score:g}: {terms}")
