"""The node controller and the node agent on a real cluster, with fake nodes."""

import threading
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from components.preflight.report import Finding, Report
from components.preflight.stamp import VOUCHED_FOR, ask_stamp
from tasks.cluster.api import NODES, Api, connect
from tasks.nodes.agent import Agent
from tasks.nodes.names import CONDITION
from tasks.nodes.policy import load_policy
from tasks.nodes.ring import read_word
from tests.cluster.fake_nodes import Healthy, Pool, pool
from tests.cluster.node_programs import wait_for

FATAL = Finding("xid", "fail", "GPU 3: Xid 79, fallen off the bus", fatal=True, device=3, value=79)
SOFT = Finding("disk_space", "fail", "/tmp: 98% used", value=98.0, limit=95.0, unit="%")
DEAR = tuple(Finding(check, "ok") for check in VOUCHED_FOR)
PROBATION = {"key": "headrace.dev/probation", "operator": "Exists", "effect": "NoSchedule"}


def report(*findings: Finding) -> Report:
    return Report("node", time.time(), "h100-sxm", findings, 0.1)


@pytest.fixture(scope="module")
def api() -> Api:
    return connect()


@pytest.fixture
def nodes(api: Api, tmp_path: Path) -> Iterator[Pool]:
    with pool(api, f"nodes-{uuid.uuid4().hex[:6]}", tmp_path) as made:
        yield made


def name(where: Pool, index: int) -> str:
    return f"{where.name}-{index:03d}"


def state(where: Pool) -> str:
    return where.state(name(where, 0))


def let_the_controller_look(where: Pool) -> None:
    """Until it has judged all that was there before: a node that came afterwards has its label."""
    witness = name(where, 999)
    where.create_nodes([witness])
    wait_for(lambda: where.state(witness), "the label of a new node")
    where.api.delete(f"{NODES}/{witness}")


def is_refused_by_all_nodes(where: Pool, pod: str) -> bool:
    found = where.pod(pod)
    assert found is not None
    assert "nodeName" not in found["spec"]
    conditions = found.get("status", {}).get("conditions") or []
    return any(c["type"] == "PodScheduled" and c["status"] == "False" for c in conditions)


def test_a_failed_pre_check_taints_its_node_and_the_next_attempt_lands_elsewhere(
    nodes: Pool,
) -> None:
    nodes.create_nodes([name(nodes, 0), name(nodes, 1)])
    with nodes.controller(nodes.policy(), "--apply"):
        wait_for(lambda: nodes.states() == ["healthy"] * 2, "both nodes to be labelled")
        nodes.create_pod("a0")
        nodes.end_preflight("a0", 69, report(FATAL))
        first = nodes.pod("a0")
        assert first is not None
        sick = first["spec"]["nodeName"]
        wait_for(lambda: nodes.taints(sick), "the taint")
        nodes.create_pod("a1")
        wait_for(lambda: (nodes.pod("a1") or {})["spec"].get("nodeName"), "a node for a1")
        second = nodes.pod("a1")
        assert second is not None
        assert {sick, second["spec"]["nodeName"]} == {name(nodes, 0), name(nodes, 1)}
        record = nodes.record(sick)
        assert record is not None
        assert record.evidence[0].message == FATAL.message
        wait_for(lambda: nodes.events("NodeQuarantined"), "the Event")
        assert nodes.events("NodeQuarantined")[0]["message"].endswith(f"({FATAL.message})")


def test_ten_of_a_hundred_nodes_go_while_the_breaker_holds_the_others_through_any_death(
    nodes: Pool,
) -> None:
    nodes.create_nodes([name(nodes, index) for index in range(100)])
    policy = nodes.policy(breaker={"max_fraction": 0.1})
    sick = [name(nodes, index) for index in range(0, 75, 5)]
    with nodes.controller(policy, "--apply") as controller:
        wait_for(lambda: nodes.states() == ["healthy"] * 100, "all to be labelled")
        for index, node_name in enumerate(sick):
            nodes.create_pod(f"p{index}", node_name)
        for index in range(len(sick)):
            nodes.end_preflight(f"p{index}", 69, report(FATAL))
            if index % 5 == 4:
                controller.kill()
                controller.start()
        wait_for(lambda: nodes.states().count("suspect") == 5, "the breaker to hold five")
        wait_for(lambda: nodes.states().count("repairing") == 10, "ten to be drained")
        assert nodes.states().count("healthy") == 85
        quarantines = [
            record.quarantines_at
            for record in map(nodes.record, sick)
            if record is not None and record.quarantines_at
        ]
        assert [len(at) for at in quarantines] == [1] * 10
        wait_for(lambda: len(nodes.events("HeldByBreaker")) >= 5, "an Event for each that is held")
    listed = nodes.person()
    assert listed.returncode == 69
    assert "the breaker holds" in listed.stderr
    assert listed.stdout.count("suspect, held by the breaker") == 5


def test_a_sick_node_comes_back_through_repair_and_probation_though_the_controller_dies_all_the_time(
    nodes: Pool, api: Api
) -> None:
    nodes.create_nodes([name(nodes, 0)])
    policy = nodes.policy()
    source = Healthy(name(nodes, 0))
    agent = Agent(api, name(nodes, 0), source, nodes.thresholds(), load_policy(policy))
    with nodes.controller(policy, "--apply") as controller:
        nodes.create_pod("p0", name(nodes, 0))
        nodes.create_pod("p1", name(nodes, 0), terminationGracePeriodSeconds=7)
        nodes.create_pod("database", name(nodes, 0), labels={"app": "database"})
        nodes.end_preflight("p0", 69, report(FATAL))

        def comes_to(wanted: str) -> None:
            wait_for(lambda: state(nodes) == wanted, f"{wanted}, not {state(nodes)}")
            controller.kill()
            controller.start()

        comes_to("repairing")
        assert nodes.pod("p1") is None
        assert nodes.taints(name(nodes, 0)) == [("headrace.dev/unhealthy", "xid", "NoSchedule")]
        agent.look()
        let_the_controller_look(nodes)
        assert state(nodes) == "repairing"
        assert nodes.person("repaired", name(nodes, 0)).returncode == 0
        wait_for(lambda: nodes.record(name(nodes, 0)).repair_at is not None, "the repair's record")  # type: ignore[union-attr]
        looked = agent.look()
        assert looked is not None
        assert {found.check for found in looked.findings} >= set(VOUCHED_FOR)
        comes_to("probation")
        assert nodes.taints(name(nodes, 0)) == [("headrace.dev/probation", "true", "NoSchedule")]
        nodes.create_pod("ordinary")
        nodes.create_pod("background", tolerations=[PROBATION])
        wait_for(lambda: nodes.pod("background")["spec"].get("nodeName"), "low-priority work")  # type: ignore[index]
        wait_for(lambda: is_refused_by_all_nodes(nodes, "ordinary"), "the scheduler's no")
        agent.look()
        nodes.policy(states={"probation_s": 1})  # is read by the next controller
        controller.kill()
        controller.start()
        comes_to("healthy")
        wait_for(lambda: nodes.pod("ordinary")["spec"].get("nodeName"), "ordinary work")  # type: ignore[index]
    record = nodes.record(name(nodes, 0))
    assert record is not None
    assert [(gone.before, gone.to) for gone in record.history] == [
        *pairwise(["healthy", "quarantined", "draining", "repairing", "probation", "healthy"])
    ]
    assert nodes.taints(name(nodes, 0)) == []
    neighbour = nodes.pod("database")
    assert neighbour is not None
    assert "deletionTimestamp" not in neighbour["metadata"]
    assert agent.stamp() == record.dear_ok_until > time.time()
    shown = nodes.person("--history", name(nodes, 0)).stdout
    assert "repairing -> probation: repaired, and all checks pass" in shown


def test_the_pods_of_a_softly_failing_node_are_evicted_after_their_time_with_their_own_grace(
    nodes: Pool, api: Api
) -> None:
    nodes.create_nodes([name(nodes, 0)])
    with nodes.controller(nodes.policy(states={"drain_after_s": 4}), "--apply"):
        nodes.create_pod("runs", name(nodes, 0), terminationGracePeriodSeconds=7)
        ends: list[dict[str, object]] = []
        path = f"/api/v1/namespaces/{nodes.name}/pods"

        def follow() -> None:
            while True:
                for event in api.watch(path, fieldSelector="metadata.name=runs"):
                    if event["type"] != "BOOKMARK":
                        ends.append(event["object"])
                    if event["type"] == "DELETED":
                        return

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        wait_for(lambda: ends, "the watch")
        for index in range(2):
            nodes.create_pod(f"p{index}", name(nodes, 0))
            nodes.end_preflight(f"p{index}", 69, report(SOFT))
        taint = ("headrace.dev/unhealthy", "disk_space", "NoSchedule")
        wait_for(lambda: nodes.taints(name(nodes, 0)) == [taint], "two soft failures to count")
        wait_for(lambda: state(nodes) == "repairing", "the drain")
        following.join(60)
    grace = {pod["metadata"].get("deletionGracePeriodSeconds") for pod in ends}  # type: ignore[attr-defined]
    assert grace - {None, 0} == {7}
    reasons = {
        condition.get("reason")
        for pod in ends
        for condition in pod["status"].get("conditions", [])  # type: ignore[attr-defined]
        if condition["type"] == "DisruptionTarget"
    }
    assert reasons == {"EvictionByEvictionAPI"}
    drained = nodes.record(name(nodes, 0))
    assert drained is not None
    at = {gone.to: gone.at for gone in drained.history}
    assert at["draining"] - at["quarantined"] >= 4


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(nodes: Pool) -> None:
    nodes.create_nodes([name(nodes, 0)])
    with nodes.controller(nodes.policy()) as controller:
        nodes.create_pod("p0", name(nodes, 0))
        nodes.create_pod("p1", name(nodes, 0))
        nodes.end_preflight("p0", 69, report(FATAL))
        wait_for(lambda: "would evict" in controller.said(), "the drain it imagines")
        wait_for(lambda: nodes.events("NodeDraining"), "an Event")
        time.sleep(2)
        assert controller.said().count("would evict") == 1
    assert nodes.events("NodeQuarantined")[0]["message"].startswith("dry run, would be: xid failed")
    assert nodes.record(name(nodes, 0)) is None
    assert (state(nodes), nodes.taints(name(nodes, 0))) == ("", [])
    running = nodes.pod("p1")
    assert running is not None
    assert "deletionTimestamp" not in running["metadata"]


def test_a_node_that_others_write_all_the_time_is_judged_all_the_same(
    nodes: Pool, api: Api
) -> None:
    nodes.create_nodes([name(nodes, 0)])
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            body = {"metadata": {"annotations": {"example.org/count": str(written)}}}
            api.patch(f"{NODES}/{name(nodes, 0)}", body)
            written += 1
            time.sleep(0.02)

    writer = threading.Thread(target=write, daemon=True)
    with nodes.controller(nodes.policy(), "--apply"):
        wait_for(lambda: state(nodes) == "healthy", "the label")
        writer.start()
        try:
            nodes.create_pod("p0", name(nodes, 0))
            nodes.end_preflight("p0", 69, report(FATAL))
            wait_for(lambda: state(nodes) == "repairing", "the node to be drained")
        finally:
            stop.set()
            writer.join()
    assert written > 20
    annotations = nodes.node(name(nodes, 0))["metadata"]["annotations"]
    assert annotations["example.org/count"] == str(written - 1)


def test_the_agent_reports_its_node_and_answers_pods(nodes: Pool) -> None:
    nodes.create_nodes([name(nodes, 0)])
    policy = nodes.policy(agent={"interval_s": 0.5, "heartbeat_s": 2.0})

    def ours() -> list[dict[str, str]]:
        found = nodes.node(name(nodes, 0))["status"]["conditions"]
        return [condition for condition in found if condition["type"] == CONDITION]

    before = len(nodes.node(name(nodes, 0))["status"]["conditions"])
    with nodes.agent(policy, name(nodes, 0)) as agent:
        wait_for(ours, f"the condition; {agent.said()}")
        assert ask_stamp("127.0.0.1").fault is None
        [first] = ours()
        assert first["status"] in ("True", "False", "Unknown")
        wait_for(lambda: ours()[0]["lastHeartbeatTime"] > first["lastHeartbeatTime"], "a heartbeat")
        assert ours()[0]["lastTransitionTime"] == first["lastTransitionTime"]
    there = nodes.node(name(nodes, 0))
    assert len(there["status"]["conditions"]) == before + 1
    word = read_word(there["metadata"]["annotations"])
    assert word is not None
    assert len(word.samples) == 1
    assert abs(word.report.at - time.time()) < 60
