"""What the controller does when the server's answers to its writes are a no, or are lost."""

from copy import deepcopy
from typing import Any

import pytest

from tasks.cluster.api import Away, Refused
from tasks.nodes.acting import Controller
from tasks.nodes.names import HEALTH_ANNOTATION
from tasks.nodes.record import from_json
from tests.unit.nodes.builders import DEAR_HOURS, FATAL, NOW, POLICY, node, pod, report

CONFLICT = Refused(409, "Conflict", "the object has been modified")
INVALID = Refused(422, "Invalid", "no")


class Nodes:
    """Nodes that merge patches as the API server does; `faults` says how the next patches end."""

    def __init__(self, *names: str) -> None:
        self.there = {name: node(name) for name in names}
        self.faults: list[Exception | None] = []
        self.is_written = True
        """Whether a patch with an Away for an answer was done."""
        self.events: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        return deepcopy(self.there[path.rsplit("/", 1)[1]])

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.events.append(body["reason"])
        return body

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        there = self.there[path.rsplit("/", 1)[1]]
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Refused):
            raise fault
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise CONFLICT
        if fault is None or self.is_written:
            meta = there["metadata"]
            meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
            meta["labels"] |= body["metadata"].get("labels", {})
            meta["annotations"] |= body["metadata"].get("annotations", {})
            there["spec"] |= body.get("spec", {})
        if fault is not None:
            raise fault
        return deepcopy(there)

    def listed(self) -> list[dict[str, Any]]:
        return deepcopy(list(self.there.values()))

    def state(self, name: str) -> str:
        text = self.there[name]["metadata"]["annotations"].get(HEALTH_ANNOTATION)
        return from_json(text).state if text else ""


def controller_of(nodes: Nodes) -> Controller:
    return Controller(nodes, POLICY, DEAR_HOURS, True, clock=lambda: NOW)  # type: ignore[arg-type]


def failed(node_name: str) -> dict[str, Any]:
    return pod(f"p-{node_name}", node_name, "Failed", 69, report(FATAL))


def test_a_conflict_takes_no_room_of_the_breaker() -> None:
    nodes = Nodes("n0", "n1", "n2")
    nodes.faults = [CONFLICT]
    controller_of(nodes).turn(nodes.listed(), [failed("n0")])
    assert nodes.state("n0") == "quarantined"
    assert nodes.events == ["NodeQuarantined"]


def test_a_write_that_the_server_refuses_leaves_the_room_to_the_next_node() -> None:
    nodes = Nodes("n0", "n1", "n2")
    controller = controller_of(nodes)
    nodes.faults = [INVALID]
    controller.turn(nodes.listed(), [failed("n0")])
    controller.turn(nodes.listed(), [failed("n1")])
    assert (nodes.state("n0"), nodes.state("n1")) == ("healthy", "quarantined")


@pytest.mark.parametrize("is_written", [True, False])
def test_a_lost_answer_does_not_keep_the_node_from_being_taken_out(is_written: bool) -> None:
    nodes = Nodes("n0", "n1", "n2")
    controller, before = controller_of(nodes), nodes.listed()
    nodes.faults, nodes.is_written = [Away("timed out")], is_written
    with pytest.raises(Away):
        controller.turn(before, [failed("n0")])
    controller.turn(before, [failed("n0")])  # the watch has not told of the write yet
    assert nodes.state("n0") == ("draining" if is_written else "quarantined")
    assert "HeldByBreaker" not in nodes.events


def test_a_quarantine_whose_answer_was_lost_takes_the_room_though_the_list_is_older() -> None:
    nodes = Nodes("n0", "n1", "n2")
    controller, before = controller_of(nodes), nodes.listed()
    nodes.faults = [Away("timed out")]
    with pytest.raises(Away):
        controller.turn(before, [failed("n0")])
    for _ in range(3):
        controller.turn(before, [failed("n0"), failed("n1")])
    assert nodes.state("n1") == "suspect"


def test_a_lost_write_that_was_never_done_leaves_the_room_to_the_next_node() -> None:
    nodes = Nodes("n0", "n1", "n2")
    controller = controller_of(nodes)
    nodes.faults, nodes.is_written = [Away("timed out")], False
    with pytest.raises(Away):
        controller.turn(nodes.listed(), [failed("n0")])
    controller.turn(nodes.listed(), [failed("n1")])  # the failed pod of n0 is gone
    assert (nodes.state("n0"), nodes.state("n1")) == ("healthy", "quarantined")
