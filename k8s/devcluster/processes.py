"""The cluster's processes: started apart from whoever starts them, known by PID and time of start."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from components.errors import InfraError
from k8s.devcluster.settings import RUN
from tasks.process import end_orphans, is_running, started_ticks

ORDER = (
    "kwok",
    "kueue",
    "kubelet",
    "kube-proxy",
    "coredns",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
    "containerd",
)
"""In which they are ended."""


def pid_of(name: str) -> int | None:
    """The PID of a running one, else None."""
    try:
        pid, ticks = map(int, (RUN / "pids" / name).read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    return pid if is_running(pid, ticks) else None


def known() -> list[str]:
    """Those that were started, running or not, in the order in which they are to be ended."""
    return [name for name in ORDER if (RUN / "pids" / name).exists()]


def start(name: str, command: Sequence[str]) -> None:
    """Start it unless it runs."""
    if pid_of(name):
        return
    for folder in ("log", "pids", "commands"):
        (RUN / folder).mkdir(parents=True, exist_ok=True)
    with log_path(name).open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (RUN / "pids" / name).write_text(f"{process.pid} {started_ticks(process.pid)}")
    (RUN / "commands" / name).write_text(json.dumps(list(command)))


def restart(name: str) -> None:
    """Start a dead one as it was started before."""
    start(name, json.loads((RUN / "commands" / name).read_text()))


def stop(name: str, wait_s: float = 10.0) -> None:
    """End it: SIGTERM, and SIGKILL after `wait_s`."""
    pid = pid_of(name)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    while pid_of(name):
        if time.monotonic() > deadline:
            kill(name)
        with suppress(ChildProcessError):  # ours, if this very process started it
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


def kill(name: str) -> None:
    """SIGKILL it, and wait until nothing of it is left: neither it nor its port is in a next one's way."""
    pid = pid_of(name)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(f"the end of {name}", lambda: pid_of(name) is None)
    end_orphans(pid)  # threads that outlive the first one hold its files


def log_path(name: str) -> Path:
    return RUN / "log" / f"{name}.log"


def wait_until(what: str, probe: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Wait for `probe` to say yes; an OSError of it is a no. Raises InfraError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(OSError):
            if probe():
                return
        if time.monotonic() > deadline:
            raise InfraError(f"{what} is not ready after {timeout_s:.0f} s", f"see {RUN / 'log'}")
        time.sleep(0.1)


def memory_mib(pid: int) -> int:
    """Resident memory; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
    return 0


def cpu_s(pid: int) -> float:
    """Processor time since its start, seconds; 0 if it is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
