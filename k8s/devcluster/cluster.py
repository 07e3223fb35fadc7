"""Up and down: everything in an order in which each part finds what it needs, nothing left behind."""

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from components.errors import InfraError, UserError
from k8s.devcluster import identities, kueue, network, node, processes, servers
from k8s.devcluster.build import build, program
from k8s.devcluster.identities import PKI
from k8s.devcluster.settings import API, CACHE, NODE, RUN, SOCKETS, kubeconfig
from tasks import outcome
from tasks.locks import locked

WRITTEN = RUN / "written"
APPLIED = RUN / "applied"
"""Marks, made last: the files are whole; Kueue's objects are in the API server."""
NEEDED = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Program: Debian's package of it."""
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
)
"""What a kubelet sets, for the whole machine."""
CGROUPS = Path("/sys/fs/cgroup")


def up() -> None:
    """Build and start whatever is not there yet. Raises UserError or InfraError."""
    _require_programs()
    build()
    with locked(CACHE / ".lock"):
        began = time.monotonic()
        if not network.exists():
            _remember_kernel_settings()
            network.create()
        network.enter()
        if not WRITTEN.exists():
            for part in (identities, node, kueue, servers):
                part.write()
            WRITTEN.touch()
        SOCKETS.mkdir(parents=True, exist_ok=True)
        _start_servers()
        _start_kueue()
        processes.wait_until("the node", _is_node_ready)
        processes.wait_until("the default service account", _has_default_account)
        processes.wait_until("kueue", lambda: _get(f"http://{kueue.HEALTH}/readyz") == b"ok")
        print(f"Kubernetes and Kueue are ready after {time.monotonic() - began:.1f} s")
        print(f"inside: python -m k8s.devcluster exec kubectl get nodes; logs: {RUN / 'log'}")


def _start_servers() -> None:
    processes.start("containerd", servers.containerd())
    processes.start("etcd", servers.etcd())
    processes.start("kube-apiserver", servers.api_server())
    processes.wait_until("containerd", node.is_containerd_ready)
    node.import_image()
    processes.wait_until("kube-apiserver", lambda: _get(f"{API}/readyz", "admin") == b"ok")
    processes.start("kubelet", servers.kubelet())
    processes.start("kube-controller-manager", servers.controller_manager())
    processes.start("kube-scheduler", servers.scheduler())
    processes.start("kube-proxy", servers.proxy())
    processes.start("coredns", servers.coredns())


def _start_kueue() -> None:
    if not APPLIED.exists():
        _apply(kueue.definitions())
        _kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        _apply(kueue.objects())
        APPLIED.touch()
    kueue.METRICS_CERTIFICATES.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(kueue.METRICS_CERTIFICATES):
        kueue.METRICS_CERTIFICATES.symlink_to(PKI)
    processes.start("kueue", kueue.command())
    processes.start("kwok", kueue.kwok_command())


def down() -> None:
    """End what was started, and take away mounts, files, the network and the cgroups."""
    with locked(CACHE / ".lock"):
        for name in processes.known():
            if name == "containerd" and processes.pid_of(name):
                node.end_containers()
            processes.stop(name)
        _unmount()
        if kueue.METRICS_CERTIFICATES.is_symlink():
            kueue.METRICS_CERTIFICATES.unlink()
        _restore_kernel_settings()
        for folder in (RUN, SOCKETS):
            shutil.rmtree(folder, ignore_errors=True)
        network.remove()
        _remove_cgroups()
    print("the cluster is down")


def status() -> list[tuple[str, int | None, int, float]]:
    """Name, PID (None if dead), resident MiB and processor seconds of each server."""
    rows = []
    for name in reversed(processes.known()):
        pid = processes.pid_of(name)
        memory, cpu = (processes.memory_mib(pid), processes.cpu_s(pid)) if pid else (0, 0.0)
        rows.append((name, pid, memory, cpu))
    return rows


def execute(command: Sequence[str]) -> None:
    """Become `command`, inside the cluster's network, with kubectl on the path and an admin's access.

    Raises UserError if the cluster is down or there is no such command.
    """
    if not network.exists() or not processes.pid_of("kube-apiserver"):
        raise UserError("the cluster is down", "start it: make cluster-up")
    network.enter()
    os.environ["KUBECONFIG"] = str(kubeconfig("admin"))
    os.environ["PATH"] = f"{Path(program('kubectl')).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        os.execvp(command[0], list(command))  # noqa: S606  the point of it
    except FileNotFoundError as error:
        raise UserError(f"no command {command[0]}") from error


def _require_programs() -> None:
    if os.geteuid() != 0 or not CGROUPS.exists():
        raise UserError(
            "the development cluster needs root on Linux",
            "with a cluster of your own, set HEADRACE_TEST_KUBECONFIG",
        )
    missing = sorted({package for name, package in NEEDED.items() if not shutil.which(name)})
    if missing:
        raise UserError(
            f"missing programs of {', '.join(missing)}",
            f"apt-get install --no-install-recommends {' '.join(missing)}",
        )
    others = [path for path in CGROUPS.glob("*/kubepods") if not network.exists()]
    if others:
        raise UserError(
            f"another kubelet is at work here: {others[0]}", "use a machine without one"
        )


def _apply(objects: Sequence[object]) -> None:
    """Server-side: Kueue's definitions are too large for the client's way."""
    text = yaml.dump_all(objects, Dumper=yaml.CSafeDumper)
    _kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def _kubectl(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [program("kubectl"), f"--kubeconfig={kubeconfig('admin')}", *arguments],
        input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise InfraError(f"kubectl {arguments[0]}: {done.stderr.strip()}", f"see {RUN / 'log'}")
    return done.stdout


def _get(url: str, user: str = "") -> bytes:
    context = ssl.create_default_context(cafile=PKI / "ca.crt") if user else None
    headers = {}
    if user:
        token = yaml.safe_load(kubeconfig(user).read_text())["users"][0]["user"]["token"]
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  our own servers
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
        return bytes(answer.read())


def _is_node_ready() -> bool:
    conditions = json.loads(_get(f"{API}/api/v1/nodes/{NODE}", "admin"))["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _has_default_account() -> bool:
    return bool(_get(f"{API}/api/v1/namespaces/default/serviceaccounts/default", "admin"))


def _unmount() -> None:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    ours = [point for point in points if point.startswith((f"{RUN}/", f"{SOCKETS}/"))]
    for point in sorted(ours, reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def _remember_kernel_settings() -> None:
    RUN.mkdir(parents=True, exist_ok=True)
    found = {name: Path("/proc/sys", name).read_text().strip() for name in KERNEL_SETTINGS}
    outcome.write_json(RUN / "kernel.json", found)


def _restore_kernel_settings() -> None:
    with suppress(FileNotFoundError):
        for name, value in json.loads((RUN / "kernel.json").read_text()).items():
            Path("/proc/sys", name).write_text(value)


def _remove_cgroups() -> None:
    tops = [*CGROUPS.glob("*/kubepods"), *CGROUPS.glob("kubepods")]
    for top in tops:
        for folder, _, _ in os.walk(top, topdown=False):
            for _ in range(50):  # the kernel lets go of the last process a moment after its end
                with suppress(OSError):
                    Path(folder).rmdir()
                if not Path(folder).exists():
                    break
                time.sleep(0.05)
