"""What is kept of Nodes and pods is all that the judgement reads, and little besides."""

import json
from typing import Any

import pytest

from tasks.nodes.acting import Controller
from tasks.nodes.kept import kept_node, kept_pod
from tasks.nodes.names import (
    HEALTH_ANNOTATION,
    REPAIRED_ANNOTATION,
    RESET_ANNOTATION,
    STATE_LABEL,
)
from tasks.nodes.record import Incident, Record, to_json
from tests.unit.nodes.builders import (
    DAY,
    DEAR,
    DEAR_HOURS,
    FATAL,
    NOW,
    OK,
    POLICY,
    SOFT,
    node,
    pod,
    recorded,
    report,
    word,
)

Object = dict[str, Any]


class Noted(Object):
    """Notes in `found` what is read of it and of what it holds: the path and the value."""

    def __init__(self, content: Object, found: set[tuple[str, str]], path: str = "") -> None:
        noted = {key: _noted(value, found, f"{path}/{key}") for key, value in content.items()}
        super().__init__(noted)
        self._found, self._path = found, path

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._note(str(key))
        return super().__contains__(key)

    def _note(self, key: str) -> None:
        value = super().get(key)
        if value is not None and not isinstance(value, dict | list):
            self._found.add((f"{self._path}/{key}", str(value)))


def _noted(value: Any, found: set[tuple[str, str]], path: str) -> Any:
    if isinstance(value, dict):
        return Noted(value, found, path)
    if isinstance(value, list):
        return [_noted(one, found, path) for one in value]
    return value


class Said:
    """An API that takes everything and notes it."""

    def __init__(self, nodes: list[Object]) -> None:
        self.nodes = {one["metadata"]["name"]: one for one in nodes}
        self.asked: list[tuple[str, Object]] = []

    def create(self, path: str, body: Object) -> Object:
        self.asked.append((path, body))
        return body

    def patch(self, path: str, body: Object) -> Object:
        self.asked.append((path, body))
        return self.nodes[path.rsplit("/", 1)[1]]


def judged(nodes: list[Object], pods: list[Object]) -> tuple[Any, set[tuple[str, str]]]:
    """What a controller does of it, and what it has read."""
    api, found = Said(nodes), set[tuple[str, str]]()
    controller = Controller(api, POLICY, DEAR_HOURS, True, clock=lambda: NOW)  # type: ignore[arg-type]
    controller.turn(
        [Noted(one, found, "node") for one in nodes], [Noted(one, found, "pod") for one in pods]
    )
    return api.asked, found


def draining() -> Object:
    incident = Incident("pod:x", NOW - 50, True, "xid")
    record = Record("draining", NOW - 50, cause="xid", incidents=(incident,))
    text = to_json(record)
    labels = {STATE_LABEL: "draining", "someone/else": "s"}
    return node(annotations={HEALTH_ANNOTATION: text, "someone/else": "s"}, labels=labels)


@pytest.mark.parametrize(
    ("nodes", "pods"),
    [
        ([recorded("node")], [recorded("pod")]),
        ([node()], [pod("a", phase="Failed", exit_code=69, message=report(FATAL, SOFT))]),
        ([node()], [pod("a", phase="Failed", exit_code=69)]),
        ([node()], [pod("a", exit_code=0, message=report(OK, *DEAR))]),
        ([node(gpus=8)], [pod("a", exit_code=0, message=report(OK, *DEAR))]),
        ([node()], [pod("a", phase="Failed", exit_code=69, finished_at=NOW - 2 * DAY)]),
        ([draining()], [pod("a"), pod("b", ending=True), pod("c", phase="Succeeded")]),
        ([node(word=word(FATAL)), node("node-b")], [pod("a"), pod("b", node_name="node-b")]),
        (
            [node(annotations={REPAIRED_ANNOTATION: "today", RESET_ANNOTATION: "now"})],
            [pod("a", phase="Pending", node_name="")],
        ),
        (
            [node(word=word(SOFT), taints=[{"key": "theirs", "value": "x", "effect": "NoSchedule"}])],
            [],
        ),
    ],
)  # fmt: skip
def test_the_controller_reads_and_does_the_same_with_what_is_kept_as_with_the_whole(
    nodes: list[Object], pods: list[Object]
) -> None:
    done, read = judged(nodes, pods)
    kept = judged([kept_node(one) for one in nodes], [kept_pod(one) for one in pods])
    assert kept == (done, read)
    assert ("node/metadata/name", nodes[0]["metadata"]["name"]) in read


def test_what_is_kept_of_a_pod_is_its_report_and_a_few_names() -> None:
    pod = recorded("pod")
    (ended,) = [one["state"]["terminated"] for one in pod["status"]["initContainerStatuses"]]
    kept = len(json.dumps(kept_pod(pod))) - len(json.dumps(ended["message"]))
    assert kept < 500


def test_a_pod_that_is_placed_nowhere_and_has_no_status_is_kept() -> None:
    bare = {"metadata": {"namespace": "team", "name": "a", "uid": "u", "labels": {"x": "y"}}}
    assert kept_pod(bare) == {
        "metadata": {"namespace": "team", "name": "a", "uid": "u"},
        "spec": {},
        "status": {"initContainerStatuses": []},
    }
