"""How a record shows on the Node."""

import json

import pytest

from tasks.nodes.marks import patch, taints_of
from tasks.nodes.names import HEALTH_ANNOTATION, REPAIRED_ANNOTATION, STATE_LABEL, STATES, State
from tasks.nodes.record import Record, Risk, from_json, record_of, to_json
from tests.unit.nodes.builders import NOW, failure, node

FATAL = failure("pod:1", NOW, fatal=True).incident
FOREIGN = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
WANTED = {
    "healthy": [],
    "suspect": [("headrace.dev/unhealthy", "ecc", "PreferNoSchedule")],
    "quarantined": [("headrace.dev/unhealthy", "ecc", "NoSchedule")],
    "draining": [("headrace.dev/unhealthy", "ecc", "NoSchedule")],
    "repairing": [("headrace.dev/unhealthy", "ecc", "NoSchedule")],
    "probation": [("headrace.dev/probation", "true", "NoSchedule")],
    "retired": [("headrace.dev/unhealthy", "ecc", "NoSchedule")],
}


def bare(record: Record) -> list[tuple[str, str, str]]:
    return [(taint["key"], taint["value"], taint["effect"]) for taint in taints_of(record)]


@pytest.mark.parametrize("state", STATES)
def test_each_state_has_its_taint(state: State) -> None:
    assert bare(Record(state, NOW, cause="ecc")) == WANTED[state]


@pytest.mark.parametrize("state", ["quarantined", "draining", "repairing", "retired"])
def test_a_fatal_failure_ends_no_pod_that_is_not_a_stages(state: State) -> None:
    """NoExecute would; stages are evicted by name instead."""
    fatal = Record(state, NOW, cause="ecc", incidents=(FATAL,))
    assert bare(fatal) == [("headrace.dev/unhealthy", "ecc", "NoSchedule")]


def test_a_node_at_risk_keeps_its_state_and_refuses_long_jobs() -> None:
    risky = Record("healthy", NOW, risk=Risk(0.9, True))
    assert bare(risky) == [("headrace.dev/at-risk", "true", "NoSchedule")]


def test_a_patch_names_the_version_and_leaves_other_taints_alone() -> None:
    stale = {"key": "headrace.dev/probation", "value": "true", "effect": "NoSchedule"}
    record = Record("quarantined", NOW, cause="xid")
    body = patch(node(taints=[FOREIGN, stale], version="42"), record)
    assert body == {
        "metadata": {
            "resourceVersion": "42",
            "labels": {STATE_LABEL: "quarantined"},
            "annotations": {HEALTH_ANNOTATION: to_json(record)},
        },
        "spec": {
            "taints": [
                FOREIGN,
                {"key": "headrace.dev/unhealthy", "value": "xid", "effect": "NoSchedule"},
            ]
        },
    }


def marked(record: Record, **taint: str) -> dict[str, object]:
    return node(
        labels={STATE_LABEL: record.state},
        annotations={HEALTH_ANNOTATION: to_json(record)},
        taints=[FOREIGN, *({**item, **taint} for item in taints_of(record))],
    )


def test_a_node_that_is_as_it_should_be_needs_no_patch() -> None:
    record = Record("draining", NOW, cause="xid", incidents=(FATAL,))
    assert patch(marked(record, timeAdded="2027-01-15T08:00:00Z"), record) is None


def test_a_taint_that_somebody_took_away_is_put_back() -> None:
    record = Record("quarantined", NOW, cause="xid")
    there = marked(record)
    there["spec"] = {"taints": [FOREIGN]}
    body = patch(there, record)
    assert body is not None
    assert body["spec"]["taints"] == [FOREIGN, *taints_of(record)]
    assert set(body["metadata"]) == {"resourceVersion"}


def test_a_record_comes_back_from_the_annotation_as_it_was() -> None:
    record = Record("draining", NOW, incidents=(FATAL,), quarantines_at=(NOW - 1, NOW))
    meta = marked(record)["metadata"]
    assert record_of(meta["labels"], meta["annotations"], NOW + 9) == record  # type: ignore[index]


def test_instants_are_read_by_people() -> None:
    body = json.loads(to_json(Record("healthy", NOW, dear_ok_until=NOW + 1)))
    assert body == {
        "state": "healthy",
        "since_at": "2027-01-15T08:00:00Z",
        "dear_ok_until": "2027-01-15T08:00:01Z",
    }


def test_a_field_of_a_newer_controller_does_not_cost_the_record() -> None:
    body = json.loads(to_json(Record("retired", NOW))) | {"novelty": 1}
    assert from_json(json.dumps(body)) == Record("retired", NOW)


@pytest.mark.parametrize("text", [None, "", "{", '{"state": "splendid"}'])
def test_a_lost_record_does_not_set_a_node_free(text: str | None) -> None:
    annotations = {REPAIRED_ANNOTATION: "r1"} | ({} if text is None else {HEALTH_ANNOTATION: text})
    record = record_of({STATE_LABEL: "retired"}, annotations, NOW)
    assert (record.state, record.since_at, record.repair_taken) == ("retired", NOW, "r1")
    assert record_of({}, annotations, NOW) == Record("healthy", NOW)
