"""A namespace with queues and a volume of its own for each module; all of it is deleted at the end."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import projects
from tests.cluster.overlay import is_ours
from tests.integration.tasks.consoles import Console
from tests.integration.tasks.prefect_server import serving

ON_ANY_CLUSTER = "test_any_cluster"
"""The others apply the overlay `dev`, end servers of the cluster, and give pods this machine's folders."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not is_ours():
        foreign = pytest.mark.skip(reason="needs the development cluster: make cluster-up")
        for item in items:
            if item.path.parent.name == "cluster" and item.path.stem != ON_ANY_CLUSTER:
                item.add_marker(foreign)


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    if "KUBECONFIG" not in os.environ:
        pytest.skip("no cluster: make test-cluster starts one and runs these there")


@dataclass(frozen=True)
class Place:
    """A project, and where its Jobs are."""

    root: Path
    namespace: str

    @property
    def variables(self) -> dict[str, str]:
        return projects.environment(self.root, self.namespace, projects.kubeconfig())


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project before anything ran in it."""
    return projects.build(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("volume")
    with projects.lent("test", folder) as name:
        volumes[name] = folder
        yield name


volumes: dict[str, Path] = {}
"""The folder that a namespace's volume is."""


def new_root(namespace: str) -> Path:
    """Where a test's project goes: no other test's, so that what one leaves is in nobody's way."""
    return volumes[namespace] / f"project-{uuid.uuid4().hex[:4]}"


@pytest.fixture
def place(namespace: str, template: Path) -> Iterator[Place]:
    """A fresh project on the namespace's volume; the Jobs of a test end with it."""
    root = new_root(namespace)
    projects.copy(template, root)
    yield Place(root, namespace)
    projects.kubectl("delete", "jobs", "--all", "-n", namespace, "--cascade=foreground")
    projects.remove(root)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server in the cluster's network."""
    with serving(tmp_path_factory.mktemp("prefect")) as address:
        yield address


@pytest.fixture
def console(place: Place) -> Iterator[Console]:
    """The console of the place's project, running."""
    running = Console(place.root)
    said = running.headrace("up", **place.variables)
    assert said.returncode == 0, said.stdout
    yield running
    running.headrace("down")
