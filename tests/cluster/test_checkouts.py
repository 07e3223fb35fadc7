"""Two checkouts on one volume that ask for the same key, on a real Kubernetes with Kueue."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import projects
from tests.cluster.conftest import Place, new_root
from tests.cluster.test_jobs import (
    assert_each_step_once,
    checkpoint_of,
    held_pod,
    hold,
    jobs,
    let_go,
    running_pod,
    start,
)
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for


@pytest.fixture
def other(place: Place, template: Path) -> Iterator[Place]:
    """Another checkout beside the place's project."""
    root = projects.copy(template, new_root(place.namespace))
    yield Place(root, place.namespace)
    projects.remove(root)


def test_two_checkouts_with_one_key_have_a_job_each_and_the_end_of_one_leaves_the_others(
    place: Place, other: Place
) -> None:
    hold(place)
    hold(other)
    alice, bob = start(place, "source"), start(other, "source")
    wait_for(lambda: held_pod(place) and held_pod(other))
    pod = running_pod(place)
    (own,) = [job for job in jobs(place) if pod.startswith(job["metadata"]["name"])]
    labels = [job["metadata"]["labels"] for job in jobs(place)]
    assert len({one["headrace.dev/key"] for one in labels}) == 1
    assert len({one["headrace.dev/project"] for one in labels}) == len(labels) == 2
    bob.send_signal(signal.SIGINT)
    said, _ = bob.communicate(timeout=240)
    assert bob.returncode == 75, said
    assert checkpoint_of(other) == 1
    wait_for(lambda: [job["metadata"]["uid"] for job in jobs(place)] == [own["metadata"]["uid"]])
    let_go(other)
    again = start(other, "source")  # which clears away what is left of its own first attempt
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert_each_step_once(other)
    assert running_pod(place) == pod
    let_go(place)
    said, _ = alice.communicate(timeout=240)
    assert alice.returncode == 0, said
    assert [toy.text_of(one.root, "source") for one in (place, other)] == ["s", "s"]
    assert_each_step_once(place)
