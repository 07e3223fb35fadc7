"""The development cluster's servers, killed and started again."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s.devcluster import processes
from tests.integration.tasks.consoles import free_ports
from tests.integration.tasks.processes import wait_for

SERVER = """
import pathlib, socket, sys, time
held = bytearray(1) * (300 << 20)  # which the kernel takes its time to let go of
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
pathlib.Path(sys.argv[2]).touch()
time.sleep(600)
"""


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a server that listens leaves; it is started as kwok."""
    monkeypatch.setattr(processes, "RUN", tmp_path)
    (port,) = free_ports(1)
    path = tmp_path / "ready"
    processes.start("kwok", [sys.executable, "-c", SERVER, str(port), str(path)])
    wait_for(path.exists)
    yield path
    processes.kill("kwok")


def test_a_killed_server_can_be_started_again_at_once(ready: Path) -> None:
    first = processes.pid_of("kwok")
    ready.unlink()
    processes.kill("kwok")
    processes.restart("kwok")
    second = processes.pid_of("kwok")
    assert second not in (None, first)
    wait_for(ready.exists)
    assert processes.pid_of("kwok") == second
