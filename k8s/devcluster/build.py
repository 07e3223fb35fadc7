"""Builds the cluster's programs from their Go modules, once for each version of the locks.

About a quarter of an hour on two cores the first time. What was built stays in Go's own cache, so
a build that was interrupted goes on where it was.
"""

import hashlib
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

from components.errors import InfraError, UserError
from k8s.devcluster.settings import CACHE, MODULES

KUBERNETES_VERSION = "1.34.4"
SAY_INTERVAL_S = 15.0


def _linker_flags() -> str:
    """What Kubernetes' own build stamps in; without it, clients take the servers for another release."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    server, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
    stamps = {
        f"{server}.gitVersion": f"v{KUBERNETES_VERSION}",
        f"{server}.gitMajor": major,
        f"{server}.gitMinor": minor,
        f"{server}.gitTreeState": "clean",
        f"{server}.gitCommit": "0" * 40,
        f"{server}.buildDate": "1970-01-01T00:00:00Z",
        f"{client}.gitVersion": f"v{KUBERNETES_VERSION}",
        f"{client}.gitMajor": major,
        f"{client}.gitMinor": minor,
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])


PACKAGES = {
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubelet": ("kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "kube-proxy": ("kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    "etcd": ("kubernetes", "go.etcd.io/etcd/server/v3"),
    "kueue": ("kueue", "sigs.k8s.io/kueue/cmd/kueue"),
    "kwok": ("kueue", "sigs.k8s.io/kwok/cmd/kwok"),
    "coredns": ("kueue", "./coredns"),
    "pause": ("kueue", "./pause"),
}
"""Program: its module below `modules`, and its package. The first of a module takes longest."""


def go() -> str:
    """Go's program. Raises UserError if there is none."""
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if found is None:
        raise UserError("no go: the cluster's programs are built from source", "install Go 1.26")
    return found


def folder() -> Path:
    """Where the programs for the present locks and flags lie."""
    digest = hashlib.sha256(_linker_flags().encode())
    for path in sorted(MODULES.rglob("*")):
        if path.suffix in (".mod", ".sum", ".go"):
            digest.update(path.relative_to(MODULES).as_posix().encode() + path.read_bytes())
    return CACHE / f"bin-{digest.hexdigest()[:12]}"


def program(name: str) -> str:
    return str(folder() / name)


def module_folder(module: str) -> Path:
    """The sources of a module of the `kueue` lock, in Go's cache."""
    done = subprocess.run(
        [go(), "list", "-m", "-f", "{{.Dir}}", module],
        cwd=MODULES / "kueue", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not done.stdout.strip():
        raise InfraError(f"go list {module}: {done.stderr.strip()}", "is the module proxy there?")
    return Path(done.stdout.strip())


def build() -> Path:
    """Build what is missing and return the folder. Raises UserError or InfraError."""
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not (target / name).exists()]
    for number, name in enumerate(missing, 1):
        module, package = PACKAGES[name]
        with _told(f"building {name} ({number} of {len(missing)})"):
            _build_one(target / name, module, package)
    return target


def _build_one(path: Path, module: str, package: str) -> None:
    flags = _linker_flags() if module == "kubernetes" else "-s -w"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    done = subprocess.run(
        [go(), "build", "-trimpath", "-ldflags", flags, "-o", str(part), package],
        cwd=MODULES / module, env=os.environ | {"CGO_ENABLED": "0"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no reason given"])[-1]
        raise InfraError(f"go build {package}: {last}", "run it again: it goes on where it was")
    part.replace(path)


class _told:  # noqa: N801  reads as a phrase where it is used
    """Says what goes on, and every few seconds that it still does."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._say, daemon=True)

    def __enter__(self) -> None:
        self._began = time.monotonic()
        print(self._what, flush=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _say(self) -> None:
        while not self._ended.wait(SAY_INTERVAL_S):
            print(f"{self._what}: {time.monotonic() - self._began:.0f} s", flush=True)
