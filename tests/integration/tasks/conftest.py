"""The toy project, made once for all tests of the task layer."""

from pathlib import Path

import pytest

from tests.integration.tasks import toy


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project that has run once. Copy it before changing anything."""
    folder = toy.build(tmp_path_factory.mktemp("toy"))
    toy.dvc(folder, "repro")
    toy.commit(folder, "Record the first run")
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return toy.copy(template, tmp_path / "project")
