"""What all tests of the task layer share: the toy project, made once, and a Prefect server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.temporary_server import server_command
from tasks.console import answers
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import free_ports
from tests.integration.tasks.processes import wait_for


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
    """Address of a Prefect server; a temporary one for each flow takes longer than the flow."""
    folder, (port,) = tmp_path_factory.mktemp("prefect"), free_ports(1)
    settings = {
        "PREFECT_HOME": str(folder), "PREFECT_UI_ENABLED": "0",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    environ = toy.environment() | settings
    server = subprocess.Popen(server_command(port), cwd=folder, env=environ)
    address = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: answers(f"{address}/health"), 120)
        yield address
    finally:
        server.terminate()
        server.wait()
