"""The state machine, transition by transition."""

from dataclasses import replace

import pytest

from tasks.nodes.effects import Evict, Tell
from tasks.nodes.machine import step
from tasks.nodes.observed import Observations
from tasks.nodes.record import Record
from tests.unit.nodes.builders import (
    DAY,
    HOUR,
    NOW,
    POD,
    POLICY,
    STATES,
    bad,
    failure,
    good,
    passed,
    seen,
)

FRESH = Record("healthy", NOW - DAY)
SOFT = failure("pod:1", NOW - 10)
FATAL = failure("pod:2", NOW - 10, fatal=True, cause="xid")


def settled(record: Record, what: Observations, now: int = NOW) -> Record:
    for _ in range(10):
        after, _ = step(record, what, now, POLICY)
        if after == record:
            return record
        record = after
    raise AssertionError(f"does not come to rest: {record.history}")


def states(record: Record) -> list[str]:
    return [passage.to for passage in record.history]


def test_a_healthy_node_of_which_nothing_is_seen_stays_as_it_is() -> None:
    assert step(FRESH, seen(), NOW, POLICY) == (FRESH, ())


def test_one_soft_failure_makes_a_node_suspect_and_takes_its_stamp() -> None:
    stamped = replace(FRESH, dear_passed_at=NOW - HOUR, dear_ok_until=NOW + 23 * HOUR)
    after, effects = step(stamped, seen(SOFT, stage_pods=(POD,)), NOW, POLICY)
    assert (after.state, after.reason) == ("suspect", "ecc failed once")
    assert after.dear_ok_until == 0
    assert after.evidence[0].message == "ecc is bad"
    assert effects == (Tell("Warning", "NodeSuspect", "ecc failed once (ecc is bad)"),)


def test_the_same_failure_seen_again_is_not_a_second_one() -> None:
    suspect, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    assert step(suspect, seen(SOFT), NOW + HOUR, POLICY) == (suspect, ())


def test_a_dear_check_that_passes_later_makes_a_suspect_node_healthy_and_stamps_it() -> None:
    suspect, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    after, _ = step(suspect, seen(SOFT, dear_passes=(passed(NOW + 5, 12),)), NOW + 9, POLICY)
    assert after.state == "healthy"
    assert after.dear_ok_until == NOW + 5 + 12 * HOUR


def test_a_dear_check_that_passed_before_the_failure_changes_nothing() -> None:
    suspect, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    what = seen(SOFT, dear_passes=(passed(NOW - 11),))
    assert step(suspect, what, NOW + 9, POLICY)[0] == suspect


def test_a_suspect_node_stays_so_while_the_agent_still_sees_the_failure() -> None:
    suspect, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    what = seen(SOFT, dear_passes=(passed(NOW + 5),), report=bad(NOW + 8))
    assert step(suspect, what, NOW + 9, POLICY)[0].state == "suspect"


def test_a_suspicion_ends_a_day_after_the_failure_without_a_stamp_and_for_good() -> None:
    """Where stages take a part of a node, nothing else would ever answer it."""
    suspect, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    over_at = NOW - 10 + STATES.soft_window_s
    assert settled(suspect, seen(SOFT), over_at - 1).state == "suspect"
    node = settled(suspect, seen(SOFT), over_at)
    assert (node.state, node.reason) == ("healthy", "nothing has failed for 24 h")
    assert (node.dear_ok_until, node.incidents) == (0, ())
    assert settled(node, seen(SOFT), over_at + HOUR) == node


def test_a_suspicion_does_not_end_by_time_while_the_agent_still_sees_the_failure() -> None:
    suspect, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    later = NOW + 2 * STATES.soft_window_s
    assert settled(suspect, seen(SOFT, report=bad(later)), later).state == "suspect"


def test_a_fatal_failure_that_the_breaker_holds_is_not_forgotten() -> None:
    held, _ = step(FRESH, seen(FATAL, may_quarantine=False), NOW, POLICY)
    later = NOW + 2 * STATES.soft_window_s
    assert settled(held, seen(may_quarantine=False), later).state == "suspect"
    assert step(held, seen(), later, POLICY)[0].state == "quarantined"


@pytest.mark.parametrize(
    ("apart_s", "state"),
    [(STATES.soft_window_s - 1, "quarantined"), (STATES.soft_window_s + 1, "suspect")],
)
def test_a_second_soft_failure_quarantines_within_a_day_and_not_after(
    apart_s: int, state: str
) -> None:
    first = failure("pod:1", NOW - apart_s)
    suspect, _ = step(FRESH, seen(first), NOW - apart_s, POLICY)
    second = failure("pod:3", NOW, cause="disk_space")
    after, _ = step(suspect, seen(first, second, stage_pods=(POD,)), NOW, POLICY)
    assert after.state == state
    assert after.quarantines_at == ((NOW,) if state == "quarantined" else ())


def test_a_pass_between_two_soft_failures_does_not_make_the_second_a_first() -> None:
    node, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    node = settled(node, seen(SOFT, dear_passes=(passed(NOW + 60),)), NOW + 60)
    assert node.state == "healthy"
    node, _ = step(node, seen(failure("pod:3", NOW + 90)), NOW + 99, POLICY)
    assert (node.state, node.cause) == ("quarantined", "ecc")


def test_a_fatal_failure_quarantines_at_once_and_drains_with_the_pods_own_grace() -> None:
    what = seen(FATAL, stage_pods=(POD, replace(POD, name="b", uid="u2", is_ending=True)))
    node, effects = step(FRESH, what, NOW, POLICY)
    assert node.state == "quarantined"
    assert not any(isinstance(effect, Evict) for effect in effects)
    node, effects = step(node, what, NOW + 1, POLICY)
    assert (node.state, node.cause, node.fatal) == ("draining", "xid", True)
    assert [effect for effect in effects if isinstance(effect, Evict)] == [Evict(POD)]
    again, effects = step(node, what, NOW + 2, POLICY)
    assert (again, effects) == (node, (Evict(POD),))


def test_the_pods_of_a_softly_failing_node_have_their_time_before_they_are_evicted() -> None:
    what = seen(SOFT, failure("pod:3", NOW - 5), stage_pods=(POD,))
    node, _ = step(FRESH, what, NOW, POLICY)
    waits, effects = step(node, what, NOW + STATES.drain_after_s - 1, POLICY)
    assert (waits.state, effects) == ("quarantined", ())
    drains, effects = step(node, what, NOW + STATES.drain_after_s, POLICY)
    assert drains.state == "draining"
    assert Evict(POD) in effects


def test_a_fatal_failure_ends_the_wait_of_a_softly_failing_node() -> None:
    what = seen(SOFT, failure("pod:3", NOW - 5), stage_pods=(POD,))
    node, _ = step(FRESH, what, NOW, POLICY)
    node, _ = step(node, seen(*what.failures, FATAL, stage_pods=(POD,)), NOW + 1, POLICY)
    assert (node.state, node.cause) == ("draining", "xid")
    assert node.reason == "xid is fatal: nobody waits"


def test_what_turns_fatal_while_a_node_is_drained_is_what_awaits_a_repair() -> None:
    what = seen(SOFT, failure("pod:3", NOW - 5), stage_pods=(POD,))
    node = settled(settled(FRESH, what), what, NOW + STATES.drain_after_s)
    assert (node.state, node.cause) == ("draining", "ecc")
    node = settled(node, seen(*what.failures, FATAL), NOW + STATES.drain_after_s + 1)
    assert (node.state, node.cause) == ("repairing", "xid")
    assert node.reason == "drained; xid awaits a repair"


def test_a_drained_node_awaits_a_repair_reported_after_its_quarantine() -> None:
    node = settled(FRESH, seen(FATAL, repaired="an old repair"))
    assert states(node) == ["quarantined", "draining", "repairing"]
    assert node.repair_at is None
    what = seen(FATAL, repaired="a new repair", report=good(NOW + 5))
    node, _ = step(node, what, NOW + 10, POLICY)
    assert (node.repair_at, node.repairs_at) == (NOW + 10, (NOW + 10,))
    assert settled(node, what, NOW + 20) == node  # the report is older than the repair
    node = settled(node, replace(what, report=good(NOW + 20)), NOW + 20)
    assert (node.state, node.since_at) == ("probation", NOW + 20)


def test_a_repaired_node_whose_dear_checks_have_not_run_stays_out() -> None:
    node = settled(FRESH, seen(FATAL))
    what = seen(FATAL, repaired="r1", report=good(NOW + 20, dear_ok=False))
    assert settled(settled(node, what, NOW + 10), what, NOW + 20).state == "repairing"


def test_a_repair_after_which_checks_fail_awaits_another() -> None:
    node = settled(settled(FRESH, seen(FATAL)), seen(FATAL, repaired="r1"), NOW + 10)
    node = settled(node, seen(FATAL, repaired="r1", report=bad(NOW + 20)), NOW + 20)
    assert (node.state, node.repair_at) == ("repairing", None)
    assert node.reason == "ecc fails after the repair; it awaits another"
    node = settled(node, seen(FATAL, repaired="r1", report=good(NOW + 30)), NOW + 30)
    assert node.state == "repairing"
    node = settled(node, seen(FATAL, repaired="r2"), NOW + 40)
    node = settled(node, seen(FATAL, repaired="r2", report=good(NOW + 50)), NOW + 50)
    assert (node.state, node.repairs_at) == ("probation", (NOW + 10, NOW + 40))


def on_probation(since_at: int = NOW) -> Record:
    node = settled(FRESH, seen(FATAL), since_at - 30)
    node = settled(node, seen(FATAL, repaired="r1"), since_at - 20)
    return settled(node, seen(FATAL, repaired="r1", report=good(since_at)), since_at)


@pytest.mark.parametrize(
    ("elapsed_s", "state"),
    [(STATES.probation_s - 1, "probation"), (STATES.probation_s, "healthy")],
)
def test_probation_ends_after_its_time_without_a_failure(elapsed_s: int, state: str) -> None:
    what = seen(FATAL, repaired="r1", report=good(NOW + elapsed_s, dear_ok=False))
    assert settled(on_probation(), what, NOW + elapsed_s).state == state


def test_probation_does_not_end_while_the_agent_is_silent() -> None:
    later = NOW + 2 * STATES.probation_s
    assert settled(on_probation(), seen(repaired="r1"), later).state == "probation"


def test_one_soft_failure_on_probation_quarantines_again() -> None:
    node, _ = step(on_probation(), seen(failure("pod:9", NOW + 5)), NOW + 6, POLICY)
    assert (node.state, node.reason) == ("quarantined", "ecc failed on probation")


def repaired_times(number: int, apart_s: int) -> Record:
    node, at = FRESH, NOW
    for index in range(number):
        node = settled(node, seen(failure(f"pod:{index}", at, fatal=True)), at)
        node = settled(node, seen(repaired=f"r{index}", report=good(at + 10)), at + 10)
        assert states(node)[-2:] == ["repairing", "probation"]
        at += apart_s
    return settled(node, seen(failure("the last", at, fatal=True)), at)


def test_the_failure_after_five_repairs_within_a_week_retires_a_node() -> None:
    node = repaired_times(STATES.max_repairs, HOUR)
    assert states(node)[-2:] == ["draining", "retired"]
    assert node.reason == "5 repairs within 7 days did not last"


def test_five_repairs_over_more_than_a_week_do_not_retire_a_node() -> None:
    assert repaired_times(STATES.max_repairs, STATES.repair_window_s // 4).state == "repairing"


def test_a_retired_node_leaves_only_by_a_persons_reset_and_through_probation() -> None:
    node = repaired_times(STATES.max_repairs, HOUR)
    at = node.since_at
    waited = settled(node, seen(repaired="r9", report=good(at + 9 * DAY)), at + 9 * DAY)
    assert (waited.state, waited.history) == ("retired", node.history)
    what = seen(reset="new mainboard", repaired="r9", report=good(at + 20))
    node = settled(node, what, at + 20)
    assert states(node)[-3:] == ["retired", "repairing", "probation"]
    assert node.repairs_at == ()
    assert "new mainboard" in node.history[-2].why


def test_a_reset_makes_a_suspect_node_healthy_once() -> None:
    suspect, _ = step(FRESH, seen(SOFT), NOW, POLICY)
    node = settled(suspect, seen(SOFT, reset="a false alarm"), NOW + 5)
    assert (node.state, node.incidents) == ("healthy", ())
    again = seen(SOFT, failure("pod:3", NOW + 8), reset="a false alarm")
    assert settled(node, again, NOW + 9).state == "suspect"


def test_a_reset_does_not_lead_out_of_quarantine() -> None:
    node = settled(FRESH, seen(FATAL))
    assert settled(node, seen(FATAL, reset="please"), NOW + 5).state == "repairing"


def test_a_node_that_the_breaker_holds_is_suspect_and_says_so_once() -> None:
    held, effects = step(FRESH, seen(FATAL, may_quarantine=False), NOW, POLICY)
    assert (held.state, held.held_since_at) == ("suspect", NOW)
    assert [effect.reason for effect in effects if isinstance(effect, Tell)] == [
        "NodeSuspect", "HeldByBreaker",
    ]  # fmt: skip
    assert step(held, seen(FATAL, may_quarantine=False), NOW + 60, POLICY) == (held, ())
    freed, _ = step(held, seen(FATAL), NOW + 600, POLICY)
    assert (freed.state, freed.held_since_at) == ("quarantined", None)


def test_a_stage_that_turns_up_on_a_node_under_repair_is_evicted() -> None:
    node = settled(FRESH, seen(FATAL))
    assert step(node, seen(FATAL, stage_pods=(POD,)), NOW, POLICY)[1] == (Evict(POD),)


def test_a_failure_in_the_second_in_which_probation_begins_counts() -> None:
    node = on_probation()
    after, _ = step(node, seen(failure("pod:9", node.since_at)), node.since_at, POLICY)
    assert after.state == "quarantined"


def test_a_failure_that_was_dealt_with_stays_so_though_its_pod_is_still_there() -> None:
    node = settled(on_probation(), seen(failure("pod:9", NOW + 5)), NOW + 5)
    still_there = seen(failure("pod:9", NOW + 5), repaired="r2")
    node = settled(node, still_there, NOW + 5)
    assert (node.state, node.incidents) == ("repairing", ())
    node = settled(node, seen(*still_there.failures, repaired="r2", report=good(NOW + 6)), NOW + 6)
    assert node.state == "probation"
