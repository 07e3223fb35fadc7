"""What all tests of the task layer share: the toy project, made once, and a Prefect server."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.tasks import toy
from tests.integration.tasks.prefect_server import serving


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project that has run once. Copy it before changing anything."""
    folder = toy.build(tmp_path_factory.mktemp("toy"))
    toy.dvc(folder, "repro")
    toy.run(folder, sys.executable, "-m", "tasks.tracking")
    toy.commit(folder, "Record the first run")
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return toy.copy(template, tmp_path / "project")


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server."""
    with serving(tmp_path_factory.mktemp("prefect")) as address:
        yield address
