"""The controller's loop over what it watches."""

import threading

import pytest

from components.errors import InfraError
from tasks.cluster.watching import Watched
from tasks.nodes import controller
from tests.unit.cluster.servers import lists, routed
from tests.unit.nodes.builders import DEAR_HOURS, POLICY

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
