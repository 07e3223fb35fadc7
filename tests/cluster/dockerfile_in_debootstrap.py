"""`python -m tests.cluster.dockerfile_in_debootstrap FOLDER`: the Dockerfile without an engine.

Debian's smallest system, made by debootstrap, stands for the base image; each instruction is carried
out on a copy of what it builds on: RUN by chroot in namespaces of its own, COPY by cp. At the end each
image is used as a pod would use it: by its user, with a read-only root. Root, Linux, debootstrap; 20 GB
below FOLDER, about a quarter of an hour. What it cannot show: layers, labels in a registry, other
engines' reading of the file.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.dockerfile import Instruction, Stage, assignment, assignments, expanded, stages
from tests.manifests import ROOT

IMAGES = ("control", "gpu")
SUITE = "bookworm"
SURROUNDINGS = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
"""Files by which this machine reaches its package registries; a builder brings its own."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""A builder's, until ENV sets another."""
IN_NAMESPACES = (
    "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-ceu",
)  # fmt: skip
PREPARED = """
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
shift 2
exec "$@"
"""
AS_A_POD = """
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount -o remount,ro,bind "$1"
shift 2
exec "$@"
"""
AS_MANIFESTS = {"HOME": "/tmp", "DVC_SITE_CACHE_DIR": "/tmp/dvc"}
USES = {
    "control": (
        "headrace --help",
        "python -c 'import flows.deployments, tasks.cluster.launcher, mlflow, dvc.repo'",
        'git clone -q /app /tmp/project && cd /tmp/project && test -z "$(git status --porcelain)"'
        ' && test "$(git rev-parse HEAD)" = "$HEADRACE_COMMIT" && headrace plan',
        "! touch /app/x 2>/dev/null",
    ),
    "gpu": (
        "python -m tasks.container --help",
        "python -c 'from components.contract import STAGES; import importlib;"
        ' [importlib.import_module(f"components.{stage}.stage") for stage in STAGES]\'',
        "for name in prefect dvc mlflow kubernetes; do"
        ' ! python -c "import $name" 2>/dev/null; done',
        "PATH=/opt/venv/bin python -c 'from deepspeed.comm.torch import build_shm_op;"
        " assert build_shm_op().vector_kernel_level() >= 0'",
        "! touch /app/x 2>/dev/null",
    ),
}
"""What must work in each image; of DeepSpeed's operator without a compiler within reach."""


@dataclass(frozen=True)
class Built:
    """A stage as far as it is built."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="for the systems; what an earlier run left is removed"
    )
    parser.add_argument("--image", choices=IMAGES, action="append", help="both if left out")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    context, commit = _context(folder)
    _, found = stages(ROOT / "Dockerfile")
    given = {"COMMIT": commit}
    built: dict[str, Built] = {}
    for name in arguments.image or IMAGES:
        for stage in _needed(name, {stage.name: stage for stage in found}):
            if stage.name not in built:
                built[stage.name] = _build(stage, built, folder, context, given)
    for name in arguments.image or IMAGES:
        _use(name, built[name], commit)
    return 0


def _context(folder: Path) -> tuple[Path, str]:
    """A clone of HEAD, as one has it who builds, and its commit."""
    context = folder / "context"
    subprocess.run(["git", "clone", "-q", "--no-local", str(ROOT), str(context)], check=True)
    head = ["git", "-C", str(context), "rev-parse", "HEAD"]
    return context, subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()


def _needed(name: str, by_name: dict[str, Stage]) -> list[Stage]:
    """The stage after all that it is built on or copies from."""
    stage = by_name[name]
    before = [stage.parent, *(one.flags.get("from", "") for one in stage.of("COPY"))]
    return [found for other in before if other in by_name for found in _needed(other, by_name)] + [
        stage
    ]


def _build(
    stage: Stage, built: dict[str, Built], folder: Path, context: Path, given: dict[str, str]
) -> Built:
    root = folder / stage.name
    if stage.parent in built:
        _copy(built[stage.parent].root, root)
        now = replace(built[stage.parent], root=root, arguments={})
    else:
        _say(stage.name, f"debootstrap in place of {stage.parent}")
        _debootstrap(root)
        now = Built(root)
    for one in stage.instructions:
        _say(stage.name, f"{one.verb} {one.text[:100]}")
        now = _carry_out(one, now, built, context, given)
    return now


def _carry_out(
    one: Instruction, now: Built, built: dict[str, Built], context: Path, given: dict[str, str]
) -> Built:
    values = now.environment | now.arguments
    match one.verb:
        case "RUN":
            _run(now, one.text)
        case "COPY":
            origin = built[one.flags["from"]].root if one.flags else context
            *sources, target = one.words
            for source in sources:
                _copy_into(origin / source.lstrip("/"), now.root / target.lstrip("/"), target)
        case "ARG":
            name, default = assignment(one.text)
            return replace(now, arguments=now.arguments | {name: given.get(name, default)})
        case "ENV":
            return replace(now, environment=now.environment | assignments(one, values))
        case "LABEL":
            return replace(now, labels=now.labels | assignments(one, values))
        case "USER":
            return replace(now, user=expanded(one.text, values))
        case "WORKDIR":
            (now.root / one.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            return replace(now, folder=one.text)
        case "CMD":
            pass
        case other:
            raise ValueError(f"no way to carry out {other}")
    return now


def _copy_into(source: Path, target: Path, written: str) -> None:
    """COPY's rule: a folder's content goes into the target; a file too, if it is written with a slash."""
    if source.is_dir():
        _copy(source, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target / source.name if written.endswith("/") else target)


def _copy(source: Path, target: Path) -> None:
    """Linked, not copied: what is installed later replaces files and does not write into them."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--link", f"{source}/.", str(target)], check=True)


def _debootstrap(root: Path) -> None:
    """With the address, and afterwards the sources, that this machine's own apt has."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    lines = sources.read_text(encoding="utf-8").splitlines()
    mirror = next(line.split()[1] for line in lines if line.startswith("URIs:"))
    subprocess.run(
        ["debootstrap", "--variant=minbase", SUITE, str(root), mirror],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for path in (sources, *Path("/etc/apt/apt.conf.d").glob("99*"), Path("/etc/pip.conf")):
        if path.exists():
            _bring(path, root)
    _bring(Path("/etc/resolv.conf"), root)
    for name, inside in _surroundings().items():
        _copy_into(Path(os.environ[name]).resolve(), root / inside.lstrip("/"), inside)


def _bring(path: Path, root: Path) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path.resolve(), target)


def _surroundings() -> dict[str, str]:
    """Variable: where its file lies in a root; out of the way of the image's own."""
    return {name: f"/run/builder/{name}" for name in SURROUNDINGS if name in os.environ}


def _run(now: Built, text: str) -> None:
    environ = {"PATH": DEFAULT_PATH, "HOME": "/root"} | now.arguments | now.environment
    environ |= _surroundings()
    _in_root(now.root, PREPARED, "0:0", environ, text)


def _use(name: str, image: Built, commit: str) -> None:
    size = subprocess.run(["du", "-sm", image.root], check=True, capture_output=True, text=True)
    _say(name, f"{int(size.stdout.split()[0])} MiB, labels {image.labels}")
    assert image.labels["org.opencontainers.image.revision"] == commit
    assert image.environment["HEADRACE_COMMIT"] == commit
    for text in USES[name]:
        _say(name, f"as {image.user}, root read-only: {text[:100]}")
        environ = image.environment | AS_MANIFESTS
        _in_root(
            image.root, AS_A_POD, image.user, environ, f"cd {shlex.quote(image.folder)}; {text}"
        )


def _in_root(root: Path, prepare: str, user: str, environ: dict[str, str], text: str) -> None:
    command = [
        *IN_NAMESPACES, prepare, "sh", str(root), "--",
        "chroot", f"--userspec={user}", str(root),
        "/usr/bin/env", "-i", *(f"{key}={value}" for key, value in environ.items()),
        "/bin/sh", "-ec", text,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _say(stage: str, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {stage}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
