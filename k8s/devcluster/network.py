"""The network namespace that the cluster lives in."""

import ctypes
import os
import subprocess
from pathlib import Path

from components.errors import InfraError
from k8s.devcluster.settings import NAMESPACE, NODE_IP

CLONE_NEWNET = 0x40000000
HANDLE = Path("/run/netns") / NAMESPACE


def exists() -> bool:
    return HANDLE.exists()


def create() -> None:
    """Make it, with the node's address on a bridge: not every kernel has dummy devices."""
    _ip("netns", "add", NAMESPACE)
    inside = ("-n", NAMESPACE)
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "link", "add", "node0", "type", "bridge")
    _ip(*inside, "addr", "add", f"{NODE_IP}/24", "dev", "node0")
    _ip(*inside, "link", "set", "node0", "up")
    # Clouds' metadata servers, which some libraries ask: refused at once instead of waited for.
    _ip(*inside, "route", "add", "unreachable", "169.254.0.0/16")
    _ip(*inside, "route", "add", "default", "dev", "node0")


def enter() -> None:
    """Move this process, and whatever it starts, into it. Raises InfraError if that is not allowed."""
    handle = os.open(HANDLE, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise InfraError(f"cannot enter the network namespace {NAMESPACE}: {reason}", "as root")
    finally:
        os.close(handle)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # of this namespace alone


def remove() -> None:
    if exists():
        _ip("netns", "delete", NAMESPACE)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfraError(f"ip {' '.join(arguments)}: {done.stderr.strip()}", "as root, on Linux")
