"""A Prefect server for one flow run where none is configured, which never outlives it."""

import os
import subprocess
import sys
from functools import partial
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from tasks.process import die_with_parent


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own, which a killed flow would leave behind: the kernel ends this one with it.

    The first instance is the one that Prefect uses. To be started in the main thread: what the kernel
    watches is the thread.
    """

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        marks = {
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(
            [
                sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
                "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error",
                "--lifespan", "on",
            ],
            env=os.environ | marks | settings,
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509  no thread of ours holds a lock
        )  # fmt: skip
