"""What a launcher does while Kueue is away, and what it refuses, on a real Kubernetes with Kueue."""

import signal

from tests.cluster import projects
from tests.cluster.conftest import Place
from tests.cluster.test_failures import without
from tests.cluster.test_jobs import (
    checkpoint_of,
    hear,
    held_pod,
    hold,
    is_all_gone,
    jobs,
    repro,
    running_pod,
    start,
)
from tests.integration.tasks.processes import wait_for


def test_an_interrupted_launch_ends_its_job_also_while_kueue_is_away(place: Place) -> None:
    hold(place)
    first = start(place, "source")
    wait_for(lambda: held_pod(place))
    with without("kueue"):
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate(timeout=120)
        assert first.returncode == 75, said
        assert "source was cancelled" in said
        assert "is deleted without Kueue's doing" in said
        wait_for(lambda: is_all_gone(place))
    assert checkpoint_of(place) == 1


def test_a_job_adopted_while_kueue_is_away_is_signed_when_it_is_back(place: Place) -> None:
    hold(place)
    first = start(place, "source", HEADRACE_FLOW_RUN="first")
    pod = wait_for(lambda: running_pod(place))
    first.kill()
    first.wait()
    with without("kueue"):
        second = start(place, "source", HEADRACE_FLOW_RUN="second")
        hear(second, "does not yet say who waits for it")
        assert flow_run(place) == "first"
    wait_for(lambda: flow_run(place) == "second")
    assert running_pod(place) == pod
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=90)


def flow_run(place: Place) -> str:
    (job,) = jobs(place)
    return str(job["metadata"]["annotations"]["headrace.dev/flow-run"])


def test_a_queue_that_is_not_there_is_refused_with_those_that_are(place: Place) -> None:
    projects.set_resources(place.root, "source", queue="dta")
    said = repro(place, "source", check=False)
    assert "user error: the cluster has no queue dta for source, only data, foundation" in said
    assert jobs(place) == []
