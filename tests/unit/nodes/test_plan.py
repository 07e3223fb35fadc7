"""The plan over all nodes, and its breaker."""

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.nodes.names import HEALTH_ANNOTATION, POOL_LABEL
from tasks.nodes.plan import Change, allowed, plan, pool_of
from tasks.nodes.policy import Breaker
from tasks.nodes.record import Record, from_json, to_json
from tests.unit.nodes.builders import (
    DEAR,
    DEAR_HOURS,
    FATAL,
    NOW,
    POLICY,
    SOFT,
    node,
    pod,
    report,
    word,
)

WINDOW_S = POLICY.breaker.window_s


def planned(nodes: list[Any], pods: list[Any], now: int = NOW, **given: Any) -> list[Change]:
    shadow, own = given.get("shadow", {}), given.get("own", {})
    return plan(nodes, pods, now, POLICY, DEAR_HOURS, shadow, own)


def applied(nodes: list[Any], changes: list[Change]) -> None:
    """As the API server merges a patch."""
    by_name = {there["metadata"]["name"]: there for there in nodes}
    for change in changes:
        if change.body is not None:
            there, meta = by_name[change.name], change.body["metadata"]
            there["metadata"]["labels"] |= meta.get("labels", {})
            there["metadata"]["annotations"] |= meta.get("annotations", {})
            there["spec"] = change.body.get("spec", there["spec"])


def states(nodes: list[Any]) -> list[str]:
    return [from_json(there["metadata"]["annotations"][HEALTH_ANNOTATION]).state for there in nodes]


@pytest.mark.parametrize(
    ("num_nodes", "number"), [(1, 1), (4, 1), (5, 1), (9, 1), (10, 2), (15, 3), (100, 20)]
)
def test_a_fifth_of_a_pool_may_go_and_at_least_one_node(num_nodes: int, number: int) -> None:
    assert allowed(num_nodes, Breaker(max_fraction=0.2, at_least=1, window_s=600)) == number


def test_a_node_without_a_label_belongs_to_the_pool_of_cpus() -> None:
    assert [pool_of(node(labels={})), pool_of(node(labels={POOL_LABEL: "h200"}))] == ["cpu", "h200"]


def test_a_new_node_is_labelled_and_then_left_alone() -> None:
    nodes = [node()]
    [change] = planned(nodes, [])
    assert (change.after.state, change.effects) == ("healthy", ())
    applied(nodes, [change])
    assert planned(nodes, [], NOW + 60) == []


def test_a_failed_pod_concerns_only_the_node_it_was_on() -> None:
    nodes = [node(f"n{index}") for index in range(10)]
    failed = pod("a", "n3", "Failed", 69, report(FATAL))
    applied(nodes, planned(nodes, [failed]))
    assert states(nodes) == ["healthy"] * 3 + ["quarantined"] + ["healthy"] * 6


@pytest.mark.parametrize(("measured", "state"), [(1, "suspect"), (8, "healthy")])
def test_a_stage_on_one_gpu_does_not_answer_a_suspicion_about_another(
    measured: int, state: str
) -> None:
    nodes = [node(gpus=8)]
    slow = replace(SOFT, check="matmul", device=5)
    failed = pod("a", phase="Failed", exit_code=69, message=report(slow), finished_at=NOW - 90)
    passed = report(*DEAR, num_gpus_measured=measured)
    applied(nodes, planned(nodes, [failed]))
    assert states(nodes) == ["suspect"]
    applied(nodes, planned(nodes, [failed, pod("b", exit_code=0, message=passed)]))
    assert states(nodes) == [state]
    record = from_json(nodes[0]["metadata"]["annotations"][HEALTH_ANNOTATION])
    assert (record.dear_ok_until > NOW) is (state == "healthy")


def test_of_ten_sick_nodes_in_a_hundred_all_go_and_of_thirty_a_fifth() -> None:
    for num_sick, num_gone in ((10, 10), (30, 20)):
        nodes = [node(f"n{index:02d}") for index in range(100)]
        pods = [pod(f"p{i}", f"n{i:02d}", "Failed", 69, report(FATAL)) for i in range(num_sick)]
        applied(nodes, planned(nodes, pods))
        assert states(nodes).count("quarantined") == num_gone
        assert states(nodes).count("suspect") == num_sick - num_gone
        held = [change for change in planned(nodes, pods) if change.after.held_since_at == NOW]
        assert held == []  # said once
        applied(nodes, planned(nodes, pods, NOW + WINDOW_S))
        assert states(nodes).count("quarantined") == num_sick - num_gone
        assert states(nodes).count("draining") == num_gone


def test_the_breakers_room_goes_to_fatal_failures_first() -> None:
    nodes = [node(f"n{index}") for index in range(5)]
    soft = [pod(f"s{i}", "n0", "Failed", 69, report(SOFT), NOW - 900 + i) for i in range(2)]
    fatal = pod("f", "n4", "Failed", 69, report(FATAL))
    applied(nodes, planned(nodes, [*soft, fatal]))
    assert states(nodes) == ["suspect", "healthy", "healthy", "healthy", "quarantined"]


def test_pools_have_a_breaker_each() -> None:
    nodes = [node(f"n{i}", labels={POOL_LABEL: f"pool{i % 2}"}) for i in range(6)]
    applied(
        nodes,
        planned(nodes, [pod(f"p{i}", f"n{i}", "Failed", 69, report(FATAL)) for i in range(6)]),
    )
    assert states(nodes) == ["quarantined"] * 2 + ["suspect"] * 4


def test_a_list_older_than_the_controllers_own_write_gives_no_room_away() -> None:
    nodes = [node(f"n{index}") for index in range(3)]
    pods = [pod("b", "n1", "Failed", 69, report(FATAL))]
    [change] = [c for c in planned(nodes, pods, own={"n0": NOW - 5}) if c.name == "n1"]
    assert (change.after.state, change.after.held_since_at) == ("suspect", NOW)


def test_a_node_that_went_within_the_window_needs_no_room_to_go_again() -> None:
    gone = Record("healthy", NOW - 60, quarantines_at=(NOW - 100,))
    nodes = [node("n0", annotations={HEALTH_ANNOTATION: to_json(gone)}), node("n1"), node("n2")]
    pods = [pod(f"p{i}", f"n{i}", "Failed", 69, report(FATAL)) for i in range(2)]
    applied(nodes, planned(nodes, pods))
    assert states([nodes[0], nodes[1]]) == ["quarantined", "suspect"]


def test_a_dry_runs_imagined_records_stand_for_the_nodes_own() -> None:
    nodes = [node("n0")]
    pods = [pod("a", "n0", "Failed", 69, report(FATAL))]
    [first] = planned(nodes, pods)
    [second] = planned(nodes, pods, NOW + 1, shadow={"n0": first.after})
    assert [first.after.state, second.after.state] == ["quarantined", "draining"]


EPISODES = st.lists(
    st.tuples(
        st.sampled_from([1, 60, 200, 400, 599, 601, 4000]),
        st.sets(st.integers(0, 11), max_size=6),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=12)
@given(EPISODES)
def test_no_window_ever_sees_more_quarantines_than_the_breaker_allows(
    episodes: list[tuple[int, set[int], bool]],
) -> None:
    nodes = [node(f"n{i}", labels={POOL_LABEL: "a" if i < 10 else "b"}) for i in range(12)]
    pods: list[Any] = []
    own: dict[str, int] = {}
    quarantined: dict[str, list[int]] = {"a": [], "b": []}
    now = NOW
    for gap_s, sick, is_restarted in episodes:
        now += gap_s
        pods += [pod(f"p{now}-{i}", f"n{i}", "Failed", 69, report(FATAL), now) for i in sick]
        own = {} if is_restarted else own
        before = deepcopy(nodes)
        changes = planned(nodes, pods, now, own=own)
        applied(nodes, changes)
        for change in changes:
            if change.quarantines:
                quarantined[pool_of(change.node)].append(now)
                own[change.name] = now
        # A look at a list from before these writes wants nothing but the same again: conflicts.
        repeated = planned(before, pods, now, own=own)
        assert all(own.get(change.name) == now for change in repeated if change.quarantines)
    for pool, number in (("a", 2), ("b", 1)):
        for start in quarantined[pool]:
            inside = [at for at in quarantined[pool] if start <= at < start + WINDOW_S]
            assert len(inside) <= number


def test_the_patch_is_json() -> None:
    [change] = planned([node(word=word(SOFT))], [])
    assert json.loads(json.dumps(change.body)) == change.body
