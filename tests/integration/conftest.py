"""The small project, made once for all tests that need it."""

from pathlib import Path

import pytest

from tests.integration import small
from tests.integration.tasks import toy

LONGEST = ("test_small_chain", "test_console", "test_shares", "test_kills", "test_chain")
"""Files to begin with: whoever is left with one of them at the end works on while the others rest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten stages on a small corpus; nothing has run."""
    return small.build(tmp_path_factory.mktemp("chain") / "project")


@pytest.fixture(scope="session")
def small_chain(small_project: Path) -> Path:
    """The small project after its first whole run. Copy it before changing anything."""
    small.headrace(small_project, "run")
    toy.commit(small_project, "Record the first run")
    return small_project
