"""What people and launchers see of judged nodes on a real cluster: resets, rights, risk."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.preflight.report import Finding, Report
from tasks.cluster.api import NODES, connect
from tasks.nodes.agent import Agent
from tasks.nodes.names import SAMPLES_ANNOTATION
from tasks.nodes.policy import load_policy
from tasks.nodes.ring import AgentWord, word_json
from tasks.nodes.risk import Sample
from tests.cluster.fake_nodes import Healthy, Pool, pool
from tests.cluster.node_programs import wait_for

FATAL = Finding("xid", "fail", "GPU 3: Xid 79", fatal=True, device=3, value=79)
PROBATION = {"key": "headrace.dev/probation", "operator": "Exists", "effect": "NoSchedule"}
AT_RISK = {"key": "headrace.dev/at-risk", "operator": "Exists", "effect": "NoSchedule"}


def report(*findings: Finding) -> Report:
    return Report("node", time.time(), "h100-sxm", findings, 0.1)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Pool]:
    with pool(connect(), f"nodes-{uuid.uuid4().hex[:6]}", tmp_path) as made:
        made.create_nodes([f"{made.name}-000"])
        yield made


def test_a_retired_node_comes_back_by_a_persons_reset_alone(nodes: Pool) -> None:
    name = f"{nodes.name}-000"
    policy = nodes.policy(states={"max_repairs": 1}, breaker={"window_s": 1})
    agent = Agent(nodes.api, name, Healthy(name), nodes.thresholds(), load_policy(policy))
    with nodes.controller(policy, "--apply"):
        nodes.create_pod("p0", name)
        nodes.end_preflight("p0", 69, report(FATAL))
        wait_for(lambda: nodes.state(name) == "repairing", "the drain")
        refused = nodes.person("reset", name, "--why", "please")
        assert refused.returncode == 1
        assert "is repairing; this is for nodes that are retired or suspect" in refused.stderr
        nodes.person("repaired", name)
        wait_for(lambda: nodes.record(name).repairs_at, "the repair's record")  # type: ignore[union-attr]
        agent.look()
        wait_for(lambda: nodes.state(name) == "probation", "probation")
        nodes.create_pod("p1", name, tolerations=[PROBATION])
        nodes.end_preflight("p1", 69, report(FATAL))
        wait_for(lambda: nodes.state(name) == "retired", "retirement")
        assert nodes.person("reset", name, "--why", "new mainboard").returncode == 0
        wait_for(lambda: nodes.state(name) == "repairing", "the reset")
        assert "new mainboard" in nodes.record(name).reason  # type: ignore[union-attr]
        agent.look()
        wait_for(lambda: nodes.state(name) == "probation", "probation again")
    body = json.loads(nodes.person("--json").stdout)
    assert [(row["node"], row["state"]) for row in body] == [(name, "probation")]


def test_missing_rights_are_one_line_and_the_end(nodes: Pool) -> None:
    with nodes.controller(nodes.policy()) as controller:
        pass
    nodes.kubeconfig("controller").write_text(nodes.kubeconfig("agent").read_text())
    with nodes.controller(nodes.policy()) as controller:
        wait_for(lambda: controller.exit_code is not None, "the end")
        assert controller.exit_code == 64
    [line] = [line for line in controller.said().splitlines() if "user error" in line]
    assert "nodes is forbidden" in line or "pods is forbidden" in line


def test_a_node_at_risk_gets_no_multi_day_job(nodes: Pool) -> None:
    name, now = f"{nodes.name}-000", int(time.time())
    samples = tuple(Sample(now - 3600 * hour, 100 * (24 - hour), 24 - hour) for hour in range(24))
    word = AgentWord(report(Finding("ecc", "ok")), None, samples[::-1])
    body = {"metadata": {"annotations": {SAMPLES_ANNOTATION: word_json(word)}}}
    nodes.api.patch(f"{NODES}/{name}", body)
    with nodes.controller(nodes.policy(), "--apply"):
        wait_for(lambda: nodes.taints(name), "the taint")
        assert nodes.taints(name) == [("headrace.dev/at-risk", "true", "NoSchedule")]
        nodes.create_pod("days")
        nodes.create_pod("hours", tolerations=[AT_RISK])
        wait_for(lambda: (nodes.pod("hours") or {})["spec"].get("nodeName"), "the short Job's node")
        days = nodes.pod("days")
        assert days is not None
        assert "nodeName" not in days["spec"]
        wait_for(lambda: nodes.events("NodeAtRisk"), "the Event")
    record = nodes.record(name)
    assert record is not None
    assert (record.state, record.risk.score) == ("healthy", 0.84)
    assert dict(record.risk.terms) == {"corrected_errors": 0.6, "row_remaps": 0.6}
    assert nodes.events("NodeAtRisk")[0]["message"] == (
        "risk 0.84: corrected_errors 0.6, row_remaps 0.6"
    )
    assert "0.84, at risk" in nodes.person().stdout
