"""The controller's loop over what it watches."""

import threading

import pytest

from components.errors import InfraError
from tasks.cluster.watching import Watched
from tasks.nodes import controller
from tasks.nodes.kept import kept_node, kept_pod
from tests.unit.cluster.servers import Object, lists, routed
from tests.unit.nodes.builders import DEAR_HOURS, POLICY, recorded

PODS = "/api/v1/namespaces/team/pods"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_dies_ends_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> str:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(Watched, "_watch", dies)
    routes = {("GET", "/api/v1/nodes"): [lists(1)], ("GET", PODS): [lists(1)]}
    often = POLICY.controller.model_copy(update={"resync_s": 0.01})
    policy = POLICY.model_copy(update={"controller": often})
    with routed(routes) as (_, api), pytest.raises(InfraError, match="the watch of nodes"):
        controller.run(api, policy, DEAR_HOURS, True, "", "team", threading.Event())


def test_no_more_of_a_node_or_a_pod_is_held_than_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole pod takes many times what is kept of it, and there are thousands."""
    stop, held = threading.Event(), list[Object]()

    def turn(_: object, nodes: Watched, pods: Watched, stop: threading.Event) -> bool:
        held.extend([*nodes.objects().values(), *pods.objects().values()])
        stop.set()
        return False

    monkeypatch.setattr(controller, "_turn", turn)
    node, pod = recorded("node"), recorded("pod")
    routes = {("GET", "/api/v1/nodes"): [lists(1, node)], ("GET", PODS): [lists(1, pod)]}
    with routed(routes) as (server, api):
        controller.run(api, POLICY, DEAR_HOURS, False, "", "team", stop)
        server.released.set()
    assert held == [kept_node(node), kept_pod(pod)]
