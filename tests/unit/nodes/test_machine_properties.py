"""What holds of the state machine for any sequence of things seen."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.nodes.effects import Tell
from tasks.nodes.machine import step
from tasks.nodes.names import STATES
from tasks.nodes.observed import Observations
from tasks.nodes.record import Record, from_json, to_json
from tests.unit.nodes.builders import DAY, NOW, POD, POLICY, bad, failure, good, passed

ALLOWED = {
    "healthy": {"suspect", "quarantined"},
    "suspect": {"healthy", "quarantined"},
    "quarantined": {"draining"},
    "draining": {"repairing", "retired"},
    "repairing": {"probation"},
    "probation": {"healthy", "quarantined"},
    "retired": {"repairing"},
}
STARTS = st.builds(
    lambda state, repairs: Record(
        state,
        NOW,
        cause="ecc",
        incidents=(failure("pod:0", NOW - 9).incident,) if state == "suspect" else (),
        repairs_at=(NOW - DAY,) * repairs,
        repair_at=NOW if state == "repairing" else None,
    ),
    st.sampled_from(STATES),
    st.sampled_from([0, POLICY.states.max_repairs]),
)
EXAMPLES = settings(max_examples=40)

FAILURES = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([-5, 0, 10, 5000, DAY + 9]), st.booleans()),
    max_size=2,
)
SCENES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 30, 700, 4000, 30_000, DAY + 1, 5 * DAY]),
        FAILURES,
        st.sampled_from("-gdb"),
        st.sampled_from("-gdb"),
        st.sampled_from(["", "r1", "r2", "now"]),
        st.sampled_from(["", "", "s1", "now"]),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=20,
)


def played(scenes: list[Any]) -> list[tuple[int, Observations]]:
    """Instants in order, each with what is seen then."""
    now, seen = NOW, []
    for gap_s, failures, look, dear, repaired, reset, mixed in scenes:
        now += gap_s
        looks = {"-": None, "g": good(now), "d": good(now, dear_ok=False), "b": bad(now)}
        passes = {"g": (passed(now),), "b": (passed(now - 5000),)}
        what = Observations(
            may_quarantine=mixed % 2 == 0,
            failures=tuple(
                failure(f"pod:{number}", now - ago_s, fatal) for number, ago_s, fatal in failures
            ),
            dear_passes=passes.get(dear, ()),
            report=looks[look],
            stage_pods=(POD,) if mixed > 3 else (),
            repaired=f"at {now}" if repaired == "now" else repaired,
            reset=f"at {now}" if reset == "now" else reset,
        )
        seen.append((now, what))
    return seen


@EXAMPLES
@given(STARTS, SCENES)
def test_only_the_transitions_of_the_diagram_happen_and_retirement_ends_by_a_reset(
    record: Record, scenes: list[Any]
) -> None:
    for now, what in played(scenes):
        after, _ = step(record, what, now, POLICY)
        if after.state != record.state:
            assert after.state in ALLOWED[record.state]
            assert after.history[-1].before == record.state
            assert after.history[-1].at == now == after.since_at
        if record.state == "retired" and after.state != "retired":
            assert what.reset not in ("", record.reset_taken)
        if after.quarantines_at != record.quarantines_at:
            assert what.may_quarantine
            assert after.state == "quarantined"
        record = after


@EXAMPLES
@given(STARTS, SCENES)
def test_a_node_of_which_nothing_new_is_seen_comes_to_rest_and_has_nothing_to_tell(
    record: Record, scenes: list[Any]
) -> None:
    for now, what in played(scenes):
        for _ in range(6):
            before = record
            record, effects = step(before, what, now, POLICY)
            if record == before:
                break
        assert record == before
        assert not any(isinstance(effect, Tell) for effect in effects)


@EXAMPLES
@given(STARTS, SCENES, st.sets(st.integers(0, 20)))
def test_a_controller_that_dies_between_any_two_steps_changes_nothing(
    record: Record, scenes: list[Any], deaths: set[int]
) -> None:
    revived = record
    for index, (now, what) in enumerate(played(scenes)):
        if index in deaths:
            revived = from_json(to_json(revived))
        record, effects = step(record, what, now, POLICY)
        revived, same = step(revived, what, now, POLICY)
        assert (revived, same) == (record, effects)


@settings(max_examples=10)
@given(STARTS, SCENES)
def test_a_record_stays_far_below_what_annotations_may_take(
    record: Record, scenes: list[Any]
) -> None:
    for now, what in played(scenes * 10):
        record, _ = step(record, what, now, POLICY)
    assert len(to_json(record)) < 32 * 1024
