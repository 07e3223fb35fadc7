"""Where the development cluster keeps what, and the addresses it uses in its own network."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE / "modules"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headrace" / "devcluster"
"""Outside the checkout: binaries outlive a clone, and all clones of a machine share one cluster."""
RUN = CACHE / "run"
"""All state of the running cluster; removed when it goes down."""
SOCKETS = Path("/run/headrace-dev")
"""Short, for a Unix socket's path may have 107 characters."""
CONTAINERD = SOCKETS / "containerd.sock"
CTR = ("ctr", "-a", str(CONTAINERD), "-n", "k8s.io")

NAMESPACE = "headrace-dev"
"""The network namespace that the cluster lives in: no uplink, so nothing outside can reach it."""
NODE = "dev-1"
NODE_IP = "198.18.255.1"  # RFC 2544: a range for test networks
POD_NET = "198.18.0.0/24"
SERVICE_NET = "198.18.128.0/24"
API_SERVICE = "198.18.128.1"
API = f"https://{NODE_IP}:6443"

IMAGES = ("dev.local/headrace:dev",)
"""All of them one image, almost empty: every container sees this machine's programs instead."""
PYTHON = Path(sys.base_prefix).resolve()
ENVIRONMENT = Path(sys.prefix)
IN_CONTAINERS = (
    Path("/opt/headrace") if ENVIRONMENT.is_relative_to("/tmp") else ENVIRONMENT  # noqa: S108
)
"""Where a container has the environment: at its own place, so that what was compiled here fits there,
unless that is below what a container has as its scratch."""
MOUNTS = {
    Path("/usr"): Path("/usr"),
    Path("/etc/alternatives"): Path("/etc/alternatives"),
    PYTHON: PYTHON,
    ENVIRONMENT: IN_CONTAINERS,
}
"""What every container sees of this machine, read-only, and where."""


def kubeconfig(user: str) -> Path:
    return RUN / "kubeconfig" / f"{user.replace(':', '-')}.yaml"
