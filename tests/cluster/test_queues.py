"""How the queues share GPUs, in Kueue's hands: a copy of the overlay's queues over fake nodes of its own."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.gpu_queues import Pool, hosts, is_admitted, queues_and_nodes
from tests.cluster.overlay import ask, condition, created, stage_job, until, workload_of


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with queues_and_nodes() as one:
        yield one


@pytest.fixture
def jobs() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def submit(
    jobs: ExitStack, pool: Pool, name: str, queue: str, *, gpus: int, num_pods: int = 1,
    priority: str = "research", annotations: dict[str, str] | None = None,
) -> str:  # fmt: skip
    full = pool.named(name)
    job = stage_job(full, pool.named(queue), gpus=gpus, num_pods=num_pods, priority=priority)
    job["spec"]["template"]["metadata"]["annotations"] = {"headrace.dev/fake-duration": "600s"} | (
        annotations or {}
    )
    jobs.enter_context(created(job))
    return full


def test_a_team_borrows_what_the_other_lends_and_gives_it_back_on_request(
    pool: Pool, jobs: ExitStack
) -> None:
    # Kueue takes the least of a queue first; of equals, the newest, which says nothing within a second.
    own = submit(jobs, pool, "own", "foundation", gpus=2, priority="production")
    borrowed = [submit(jobs, pool, f"borrowed-{i}", "foundation", gpus=1) for i in (1, 2)]
    until(
        "foundation has its two and applied's two", lambda: all(map(is_admitted, [own, *borrowed]))
    )
    refused = submit(jobs, pool, "beyond", "foundation", gpus=1)
    until("a fifth waits", lambda: condition(workload_of(refused), "QuotaReserved")[0] == "False")
    # Of whatever priority: what was lent comes back.
    ask("delete", "job", refused, "-n", "headrace")
    owner = submit(jobs, pool, "owner", "applied", gpus=2, priority="background")
    until("applied has its two again", lambda: is_admitted(owner))
    stopped = [workload_of(job) for job in borrowed]
    assert [condition(one, "Preempted")[:2] for one in stopped] == [
        ("True", "InCohortReclamation") for _ in borrowed
    ], stopped
    assert is_admitted(own)


def test_a_team_keeps_what_it_does_not_lend(pool: Pool, jobs: ExitStack) -> None:
    mine = submit(jobs, pool, "mine", "applied", gpus=2)
    more = submit(jobs, pool, "more", "applied", gpus=1)
    until(
        "applied has its two and one of foundation's",
        lambda: is_admitted(mine) and is_admitted(more),
    )
    beyond = submit(jobs, pool, "too-much", "applied", gpus=1)
    until(
        "the second is not lent",
        lambda: condition(workload_of(beyond), "QuotaReserved")[0] == "False",
    )
    at_once = submit(jobs, pool, "at-once", "foundation", gpus=1)
    until("foundation has its own at once", lambda: is_admitted(at_once))
    assert is_admitted(mine)
    assert is_admitted(more)


def test_production_stops_background_in_its_own_queue_and_research_does_not_stop_research(
    pool: Pool, jobs: ExitStack
) -> None:
    # The whole cohort is taken, so that there is nothing to borrow.
    other = submit(jobs, pool, "other", "applied", gpus=2)
    low = submit(jobs, pool, "low", "foundation", gpus=1, priority="background")
    middle = submit(jobs, pool, "middle", "foundation", gpus=1)
    until("all run", lambda: all(map(is_admitted, (other, low, middle))))
    high = submit(jobs, pool, "high", "foundation", gpus=1, priority="production")
    until("production runs", lambda: is_admitted(high))
    assert condition(workload_of(low), "Preempted")[:2] == ("True", "InClusterQueue")
    equal = submit(jobs, pool, "equal", "foundation", gpus=1)
    until("an equal waits", lambda: condition(workload_of(equal), "QuotaReserved")[0] == "False")
    assert is_admitted(middle)
    assert is_admitted(other)


RACK = "topology.headrace.dev/rack"


def test_a_stage_on_two_nodes_gets_both_in_one_rack(pool: Pool, jobs: ExitStack) -> None:
    wish = {"kueue.x-k8s.io/podset-preferred-topology": RACK}
    # One node of the first rack is taken, so the other rack alone has two.
    first = submit(jobs, pool, "first", "wide", gpus=8)
    until("the first is placed", lambda: is_admitted(first))
    pair = submit(jobs, pool, "pair", "wide", gpus=8, num_pods=2, annotations=wish)
    until("the pair is placed", lambda: is_admitted(pair))
    assert len({pool.nodes[host] for host in hosts(pair)}) == 1
    assert len(set(hosts(pair))) == 2
    assert set(hosts(first)).isdisjoint(hosts(pair))


def test_a_stage_that_requires_one_rack_waits_for_one(pool: Pool, jobs: ExitStack) -> None:
    wish = {"kueue.x-k8s.io/podset-required-topology": RACK}
    trio = submit(jobs, pool, "trio", "wide", gpus=8, num_pods=3, annotations=wish)
    until("it waits", lambda: "topology" in condition(workload_of(trio), "QuotaReserved")[2])
    assert not is_admitted(trio)


def test_a_node_that_was_taken_out_gets_no_stage(pool: Pool, jobs: ExitStack) -> None:
    sick, *sound = pool.nodes
    ask("taint", "node", sick, "headrace.dev/unhealthy=Xid:NoSchedule")
    try:
        three = submit(jobs, pool, "three", "wide", gpus=8, num_pods=3)
        until("three nodes are left", lambda: is_admitted(three))
        assert hosts(three) == sorted(sound)
        fourth = submit(jobs, pool, "fourth", "wide", gpus=8)
        until(
            "the fourth waits",
            lambda: condition(workload_of(fourth), "QuotaReserved")[0] == "False",
        )
    finally:
        ask("taint", "node", sick, "headrace.dev/unhealthy-")
    until("it runs on the node that returned", lambda: is_admitted(fourth))
    assert hosts(fourth) == [sick]
