"""A Prefect server for one flow run where none is configured, which never outlives it."""

import os
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import httpx
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from components.errors import InfraError
from tasks.process import die_with_parent


def start_server() -> None:
    """Start it; Prefect uses it from then on. In the main thread: what the kernel watches is a thread.

    Raises InfraError if it does not come up.
    """
    server = TemporaryServer()
    assert isinstance(server, TemporaryServer), "Prefect has started one of its own"
    try:
        server.start()
    except (httpx.HTTPError, RuntimeError) as error:
        raise InfraError(f"Prefect's temporary server: {error}", "run it again") from error


def server_command(port: int | None) -> list[str]:
    """A Prefect server on loopback, without the checks of `prefect server start`."""
    return [
        sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
        "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on",
    ]  # fmt: skip


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own, which a killed flow would leave behind: the kernel ends this one with it.

    The first instance is the one that Prefect uses.
    """

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        marks = {
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(
            server_command(self.port),
            env=os.environ | marks | settings,
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGKILL),  # noqa: PLW1509  no thread of ours holds a lock
        )
