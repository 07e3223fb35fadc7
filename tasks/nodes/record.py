"""What the controller knows of one node: the JSON in the node's annotation, and nothing besides.

It must stay small (all annotations of an object together may take 256 KiB) and outlive what a
person's edit does to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tasks.nodes.instants import Instant
from tasks.nodes.names import (
    HEALTH_ANNOTATION,
    REPAIRED_ANNOTATION,
    RESET_ANNOTATION,
    STATE_LABEL,
    STATES,
    State,
)

MAX_HISTORY = 20
MAX_INCIDENTS = 32
MAX_EVIDENCE = 8
MAX_INSTANTS = 32
MAX_TEXT = 200

_OPEN = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)
"""A field of a newer controller is no fault: a roll-back must not lose every node's record."""


@dataclass(frozen=True)
class Evidence:
    """A failed finding of a pre-check, cut to what a person needs first."""

    __pydantic_config__ = _OPEN

    check: str
    message: str
    fatal: bool = False
    device: int | None = None
    value: float | str | None = None
    limit: float | str | None = None
    unit: str = ""


@dataclass(frozen=True)
class Incident:
    """One failure that counts once, however often it is seen."""

    __pydantic_config__ = _OPEN

    id: str
    """The pod's, or the agent's episode."""
    at: Instant
    fatal: bool
    cause: str
    """The check that failed."""


@dataclass(frozen=True)
class Transition:
    __pydantic_config__ = _OPEN

    at: Instant
    before: Annotated[State, Field(alias="from")]
    to: State
    why: str


@dataclass(frozen=True)
class Risk:
    __pydantic_config__ = _OPEN

    score: float = 0.0
    """0 to 1."""
    at_risk: bool = False
    terms: tuple[tuple[str, float], ...] = ()
    """By name, those above zero."""


@dataclass(frozen=True)
class Record:
    __pydantic_config__ = _OPEN

    state: State
    since_at: Instant
    reason: str = ""
    cause: str = ""
    """The check for which the node was taken out: the taint's value."""
    held_since_at: Instant | None = None
    """Since when the breaker has kept the node from being quarantined."""
    evidence: tuple[Evidence, ...] = ()
    """Of the latest incident."""
    incidents: tuple[Incident, ...] = ()
    """Those that still count, oldest first."""
    horizon_at: Instant = 0
    """An incident before then, if it is not among `incidents`, has been dealt with."""
    quarantines_at: tuple[Instant, ...] = ()
    repairs_at: tuple[Instant, ...] = ()
    dear_passed_at: Instant = 0
    """When the dear checks last passed."""
    dear_ok_until: Instant = 0
    """The stamp: until then they need no repetition. An incident takes it away."""
    repair_taken: str = ""
    """The value of the repair annotation that was taken up last."""
    repair_at: Instant | None = None
    """When it was, while the checks that must follow are awaited."""
    repaired_at: Instant = 0
    """When the last repair was taken up, whatever came of it: no Xid before then is of today's GPUs."""
    reset_taken: str = ""
    """The value of the reset annotation that was taken up last."""
    risk: Risk = Risk()
    history: tuple[Transition, ...] = ()

    @property
    def fatal(self) -> bool:
        return any(incident.fatal for incident in self.incidents)

    @property
    def unanswered(self) -> tuple[Incident, ...]:
        """What no pass of the dear checks has answered since; nothing answers a fatal failure."""
        return tuple(
            incident
            for incident in self.incidents
            if incident.fatal or incident.at > self.dear_passed_at
        )


_RECORD = TypeAdapter(Record)


def to_json(record: Record) -> str:
    return _RECORD.dump_json(record, by_alias=True, exclude_defaults=True).decode()


def from_json(text: str) -> Record:
    """Raises ValidationError, a ValueError."""
    return _RECORD.validate_json(text)


def record_of(labels: Mapping[str, str], annotations: Mapping[str, str], now: int) -> Record:
    """A node's record; of a node that has none, or none that can be read, what its label still says.

    So an edit that goes wrong does not set a quarantined node free. A node with neither is new.
    """
    text = annotations.get(HEALTH_ANNOTATION)
    if text is not None:
        try:
            return from_json(text)
        except ValidationError:
            pass
    said = [state for state in STATES if state == labels.get(STATE_LABEL)]
    if said in ([], ["healthy"]):
        return Record("healthy", now)
    return Record(
        said[0],
        now,
        reason="the record was lost; the state is what the label said",
        cause="record-lost",
        repair_taken=annotations.get(REPAIRED_ANNOTATION, ""),
        reset_taken=annotations.get(RESET_ANNOTATION, ""),
    )
