"""The states of a node and what leads from one to the next: pure, one transition a step.

    healthy <-> suspect -> quarantined -> draining -> repairing -> probation -> healthy
       (each of the first two, and probation, ends in quarantined)   \\-> retired -> repairing

`step` may be called with the same observations any number of times, by any controller: whatever it
needs to know is in the record, so a controller that dies between two steps changes nothing.
"""

from dataclasses import replace

from tasks.nodes.effects import Effect, effects_of
from tasks.nodes.incidents import cleared, taken_up
from tasks.nodes.instants import span
from tasks.nodes.names import State
from tasks.nodes.observed import Observations
from tasks.nodes.policy import Policy
from tasks.nodes.record import MAX_HISTORY, MAX_INSTANTS, MAX_TEXT, Record, Transition
from tasks.nodes.risk import assess


def step(
    record: Record, seen: Observations, now: int, policy: Policy
) -> tuple[Record, tuple[Effect, ...]]:
    """The record after what is seen now, and what must be done about it.

    Repeated with the same arguments it comes to rest after a few transitions; from then on the
    record stays as it is and there is nothing to tell.
    """
    known = taken_up(record, seen, now, policy.states)
    known = _with_risk(known, seen, now, policy)
    moved = _answered_request(known, seen, now) or _moved(known, seen, now, policy)
    return moved, effects_of(record, moved, seen.stage_pods, policy.breaker)


def _moved(record: Record, seen: Observations, now: int, policy: Policy) -> Record:
    match record.state:
        case "healthy" | "suspect":
            return _trusted(record, seen, now, policy)
        case "quarantined":
            return _quarantined(record, seen, now, policy)
        case "draining":
            return _draining(record, seen, now, policy)
        case "repairing":
            return _repairing(record, seen, now)
        case "probation":
            return _probation(record, seen, now, policy)
        case "retired":
            return record


def _trusted(record: Record, seen: Observations, now: int, policy: Policy) -> Record:
    why = _why_quarantine(record, now, policy)
    if why and seen.may_quarantine:
        return _to_quarantine(record, seen, now, why)
    record = _held(record, bool(why), now)
    open_ones = record.unanswered
    if record.state == "healthy" and (open_ones or why):
        return _to(record, "suspect", now, why or f"{open_ones[-1].cause} failed once")
    still_fails = seen.report is not None and seen.report.failing
    if record.state == "suspect" and not (open_ones or why or still_fails):
        quiet = f"nothing has failed for {span(policy.states.soft_window_s)}"
        passed = "the dear checks have passed since"
        return _to(record, "healthy", now, passed if record.dear_ok_until else quiet)
    return record


def _why_quarantine(record: Record, now: int, policy: Policy) -> str:
    """Empty if nothing speaks for it."""
    fatal = [incident.cause for incident in record.incidents if incident.fatal]
    if fatal:
        return f"{fatal[-1]} failed, which is fatal"
    since = now - policy.states.soft_window_s
    recent = [incident.cause for incident in record.incidents if incident.at > since]
    if len(recent) >= policy.states.soft_fails_to_quarantine:
        window = span(policy.states.soft_window_s)
        return f"{len(recent)} failures within {window}, the last: {recent[-1]}"
    return ""


def _quarantined(record: Record, seen: Observations, now: int, policy: Policy) -> Record:
    record = _with_fatal_cause(record)
    if record.fatal:
        return _to(record, "draining", now, f"{record.cause} is fatal: nobody waits")
    if not seen.stage_pods:
        return _to(record, "draining", now, "no stage runs there")
    if now - record.since_at >= policy.states.drain_after_s:
        waited = span(policy.states.drain_after_s)
        return _to(record, "draining", now, f"its pods have had {waited} to end")
    return record


def _draining(record: Record, seen: Observations, now: int, policy: Policy) -> Record:
    record = _with_fatal_cause(record)
    if seen.stage_pods:
        return record
    since = now - policy.states.repair_window_s
    num_repairs = sum(at > since for at in record.repairs_at)
    if num_repairs >= policy.states.max_repairs:
        window = span(policy.states.repair_window_s)
        return _to(record, "retired", now, f"{num_repairs} repairs within {window} did not last")
    return _to(record, "repairing", now, f"drained; {record.cause} awaits a repair")


def _repairing(record: Record, seen: Observations, now: int) -> Record:
    if seen.repaired and seen.repaired != record.repair_taken:
        return replace(
            cleared(record, now),
            repair_taken=seen.repaired,
            repair_at=now,
            repaired_at=now,
            repairs_at=(*record.repairs_at, now)[-MAX_INSTANTS:],
            reason="a repair is reported; the checks must pass",
        )
    report = seen.report
    if record.repair_at is None or report is None or report.at < record.repair_at:
        return record
    if report.failing:
        reason = f"{report.cause} fails after the repair; it awaits another"
        return replace(record, repair_at=None, reason=reason)
    if report.dear_ok and not seen.stage_pods:
        fresh = replace(cleared(record, now), repair_at=None, cause="")
        return _to(fresh, "probation", now, "repaired, and all checks pass")
    return record


def _probation(record: Record, seen: Observations, now: int, policy: Policy) -> Record:
    if record.incidents:
        why = f"{record.incidents[-1].cause} failed on probation"
        if seen.may_quarantine:
            return _to_quarantine(record, seen, now, why)
        return _held(record, True, now)
    record = _held(record, False, now)
    is_over = now - record.since_at >= policy.states.probation_s
    if is_over and seen.report is not None and seen.report.ok:
        lasted = span(policy.states.probation_s)
        return _to(record, "healthy", now, f"{lasted} of probation without a failure")
    return record


def _answered_request(record: Record, seen: Observations, now: int) -> Record | None:
    """What a person's reset leads to; None if there is no new one."""
    if not seen.reset or seen.reset == record.reset_taken:
        return None
    taken = replace(record, reset_taken=seen.reset)
    why = f"reset by a person: {seen.reset}"
    if record.state == "retired":
        anew = replace(
            cleared(taken, now),
            repairs_at=(),
            repair_at=now,
            repaired_at=now,
            repair_taken=seen.repaired,
        )
        return _to(anew, "repairing", now, why)
    if record.state == "suspect":
        return _to(cleared(taken, now), "healthy", now, why)
    return taken


def _with_fatal_cause(record: Record) -> Record:
    """A fatal failure is what awaits a repair, though the node went for a lesser one."""
    fatal = [incident.cause for incident in record.incidents if incident.fatal]
    return replace(record, cause=fatal[-1]) if fatal else record


def _to_quarantine(record: Record, seen: Observations, now: int, why: str) -> Record:
    marked = replace(
        _with_fatal_cause(replace(record, cause=record.incidents[-1].cause)),
        held_since_at=None,
        dear_ok_until=0,
        repair_taken=seen.repaired,
        quarantines_at=(*record.quarantines_at, now)[-MAX_INSTANTS:],
    )
    return _to(marked, "quarantined", now, why)


def _to(record: Record, state: State, now: int, why: str) -> Record:
    why = why[:MAX_TEXT]
    passed = Transition(now, record.state, state, why)
    return replace(
        record,
        state=state,
        since_at=now,
        reason=why,
        history=(*record.history, passed)[-MAX_HISTORY:],
    )


def _held(record: Record, is_held: bool, now: int) -> Record:
    if not is_held:
        return replace(record, held_since_at=None)
    return record if record.held_since_at is not None else replace(record, held_since_at=now)


def _with_risk(record: Record, seen: Observations, now: int, policy: Policy) -> Record:
    """Trends begin anew after a repair, for a part may be another one."""
    repaired_at = max(record.repairs_at, default=0)
    samples = [sample for sample in seen.samples if sample.at > repaired_at]
    at_risk = record.risk.at_risk
    return replace(record, risk=assess(samples, record.quarantines_at, now, policy.risk, at_risk))
