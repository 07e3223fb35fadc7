"""A Prefect server for many flows; a temporary one for each takes longer than the flow."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.temporary_server import server_command
from tasks.console import answers
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import free_ports
from tests.integration.tasks.processes import wait_for


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Its address, while the body runs; `folder` keeps its database."""
    (port,) = free_ports(1)
    settings = {
        "PREFECT_HOME": str(folder), "PREFECT_UI_ENABLED": "0",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    environ = toy.environment() | settings
    server = subprocess.Popen(server_command(port), cwd=folder, env=environ)
    address = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: answers(f"{address}/health"))
        yield address
    finally:
        server.terminate()
        server.wait()
