"""The benchmark of the cluster in small: what must hold at any size. Times are the benchmark's own."""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks import cluster_history as history
from benchmarks import cluster_load as load
from benchmarks.cluster_scale import Run, through_queues
from tasks.cluster.api import connect
from tests.cluster.overlay import apply_dev

NUM_NODES, NUM_JOBS, DURATION_S = 20, 60, 3


@pytest.fixture(scope="module")
def name() -> str:
    return f"scale-{uuid.uuid4().hex[:6]}"


@pytest.fixture(scope="module")
def run(name: str) -> Iterator[Run]:
    apply_dev()  # the priorities
    server = connect()
    with load.fleet(server, name, NUM_NODES):
        yield through_queues(server, name, load.plan(NUM_JOBS, DURATION_S))


@pytest.fixture(scope="module")
def capacity(name: str) -> dict[str, int]:
    return {f"{name}-{pool}": many for pool, many in load.nodes_of_pool(NUM_NODES).items()}


def test_every_job_ends_and_no_quota_is_given_twice(run: Run, capacity: dict[str, int]) -> None:
    newest = {one.name: one for one in run.versions}
    assert Counter(one.is_finished for one in newest.values()) == {True: NUM_JOBS}
    assert sum(capacity.values()) == NUM_NODES
    assert history.overbooked(run.versions, capacity) == []
    # All are in use at once. By what quotas count: a gang's pods that have ended give their nodes back.
    held = history.used_nodes(run.versions, "flavor", "num_held")
    assert max(sum(used.values()) for _, used in held) == NUM_NODES


def test_whoever_is_stopped_makes_room_for_a_higher_priority_or_another_teams_share(
    run: Run, capacity: dict[str, int]
) -> None:
    found = history.preemptions(run.versions, capacity)
    assert "InClusterQueue" in {one.reason for one in found}
    assert history.wrong(found) == []


def test_each_preemption_that_breaks_a_rule_is_told_from_those_that_do_not(
    run: Run, capacity: dict[str, int]
) -> None:
    found = history.preemptions(run.versions, capacity)
    right = next(one for one in found if one.reason == "InClusterQueue")
    higher = replace(right.victim, priority=right.preemptor.priority)
    for broken, told in (
        (replace(right, victim=higher), "priorities"),
        (replace(right, reason="InCohortReclamation"), "the teams are"),
        (
            replace(
                right,
                free_nodes=capacity,
                preemptor=replace(right.preemptor, must_share_rack=False),
            ),
            "nodes were free",
        ),
    ):
        (why,) = history.wrong([broken])
        assert told in why


def test_a_gang_that_requires_a_rack_is_in_one_and_no_node_holds_two_jobs(
    run: Run, name: str
) -> None:
    rack_of = {node: where[1] for node, where in load.racks(name, NUM_NODES).items()}
    required = [one for one in run.versions if one.must_share_rack and one.hosts]
    assert {one.num_nodes for one in required} >= {2}
    split, _, preferring = history.split_gangs(run.versions, rack_of)
    assert split == set()
    assert preferring > 0
    now: dict[str, history.Version] = {}
    for one in run.versions:
        now[one.name] = one
        hosts = Counter(host for held in now.values() if not held.is_deleted for host in held.hosts)
        assert set(hosts.values()) <= {1}
        assert set(hosts) <= set(rack_of)


def test_two_teams_that_both_want_more_share_by_weight(run: Run) -> None:
    observed, lasted_s = history.shares(run.versions, NUM_NODES)
    assert lasted_s > 0
    due = {team: load.share_due(NUM_NODES, team) for team in load.TEAMS}
    assert sum(due.values()) == pytest.approx(1)
    # The largest gang is four of twenty nodes: a share is as fine as that.
    assert observed == pytest.approx(due, abs=4 / NUM_NODES)
    assert observed["foundation"] > observed["applied"]


def test_the_queue_is_listed_with_three_questions(run: Run) -> None:
    assert run.listing_calls == 3
