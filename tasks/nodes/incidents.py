"""Which failures still count on a node: each once, through any number of looks and controllers."""

from dataclasses import replace

from tasks.nodes.observed import Failure, Observations
from tasks.nodes.policy import States
from tasks.nodes.record import MAX_INCIDENTS, Incident, Record


def taken_up(record: Record, seen: Observations, now: int, policy: States) -> Record:
    """The record with what is newly seen: failures, and passes of the dear checks."""
    for failure in sorted(seen.failures, key=lambda it: (it.incident.at, it.incident.id)):
        record = _with_failure(record, failure, now)
    return _pruned(_with_pass(record, seen, now), now, policy)


def cleared(record: Record, now: int) -> Record:
    """All that has failed until now is dealt with; what fails from this second on is new."""
    horizon_at = max(now, *(incident.at + 1 for incident in record.incidents), record.horizon_at)
    return replace(record, incidents=(), horizon_at=horizon_at, held_since_at=None)


def _with_failure(record: Record, failure: Failure, now: int) -> Record:
    """A clock that runs ahead must not let a failure count longer than others: it is taken as now's."""
    incident = replace(failure.incident, at=min(failure.incident.at, now))
    known = {other.id for other in record.incidents}
    if incident.id in known or incident.at < record.horizon_at:
        return record
    is_answered = not incident.fatal and incident.at <= record.dear_passed_at
    return replace(
        record,
        incidents=tuple(sorted((*record.incidents, incident), key=lambda it: (it.at, it.id))),
        evidence=failure.evidence,
        dear_ok_until=record.dear_ok_until if is_answered else 0,
    )


def _with_pass(record: Record, seen: Observations, now: int) -> Record:
    """The newest pass counts if nothing has failed since; one right after a repair counts."""
    newest = max(seen.dear_passes, key=lambda it: it.at, default=None)
    if newest is None:
        return record
    passed_at = min(newest.at, now)
    failed_at = max((incident.at for incident in record.incidents), default=0)
    if passed_at < record.horizon_at or passed_at <= max(record.dear_passed_at, failed_at):
        return record
    return replace(record, dear_passed_at=passed_at, dear_ok_until=newest.until)


def _pruned(record: Record, now: int, policy: States) -> Record:
    """Without what is too old to count, and never more than fit the annotation.

    A soft failure counts for its window, whether or not a pass of the dear checks has answered it: of
    a node that stages take in parts there may never be one. A fatal one counts until the repair.
    """
    kept = [
        incident
        for incident in record.incidents
        if incident.fatal or incident.at > now - policy.soft_window_s
    ]
    kept = sorted(kept, key=lambda it: (it.fatal, it.at, it.id))[-MAX_INCIDENTS:]
    dropped = [incident for incident in record.incidents if incident not in kept]
    if not dropped:
        return record
    horizon_at = max(record.horizon_at, *(incident.at + 1 for incident in dropped))
    return replace(record, incidents=_ordered(kept), horizon_at=horizon_at)


def _ordered(incidents: list[Incident]) -> tuple[Incident, ...]:
    return tuple(sorted(incidents, key=lambda it: (it.at, it.id)))
