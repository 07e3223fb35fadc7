"""What can be known to be wrong before a Job is made."""

import subprocess
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from components.errors import UserError
from tasks import config
from tasks.cluster.manifest import tolerations
from tasks.cluster.seen import condition
from tasks.config import Settings, StageResources
from tasks.nodes.names import DEFAULT_POOL, GPU_RESOURCE, POOL_LABEL, UNHEALTHY_TAINT

Object = dict[str, Any]
CODE = ("components", "tasks")
"""What an image takes from the checkout."""
UNITS = {
    unit: Decimal(base) ** power
    for base, units in ((1000, ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")),
                        (1024, ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")))
    for power, unit in enumerate(units, -3 if base == 1000 else 1)
}  # fmt: skip


def require_volume(root: Path, volume: Path) -> None:
    """Raise UserError if pods would not see the project."""
    if not root.resolve().is_relative_to(volume.resolve()):
        raise UserError(
            f"{root} is not on the shared volume {volume}, so pods cannot see it",
            "work in a checkout there, or set HEADRACE_VOLUME to where it is mounted",
        )


def require_image(root: Path, settings: Settings) -> None:
    """Raise UserError unless the image is of the code that lies here, or the checkout is mounted."""
    if not settings.image:
        raise UserError("no image for the stages' pods", "set HEADRACE_IMAGE=<repository>:<commit>")
    name, _, tag = settings.image.rpartition("/")[2].partition(":")
    if settings.dev or "@" in name + tag:  # by digest: the pod itself compares the code
        return
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "-z", "--", *CODE)
    next_step = "docker build --build-arg COMMIT=... (docs/cluster.md), or set HEADRACE_DEV=1"
    if changed:
        raise UserError(
            f"{changed.split(chr(0))[0].split(maxsplit=1)[1]} is not committed, so no image has it",
            f"commit it and {next_step}",
        )
    if len(tag) < 7 or not commit.startswith(tag):
        raise UserError(
            f"the image {settings.image} is not of this commit, {commit[:12]}", next_step
        )


def require_fit(nodes: Sequence[Object], stage: str, resources: StageResources) -> None:
    """Raise UserError if no node could hold one pod of the stage, were it empty."""
    wanted = _wanted(resources)
    if any(_fits(node, wanted) for node in nodes):
        return
    most = {name: max((_could_have(node, name) for node in nodes), default=0.0) for name in wanted}
    short = [name for name in wanted if most[name] < wanted[name]]
    asked = ", ".join(_shown(name, wanted[name]) for name in short or wanted)
    largest = ", ".join(_shown(name, most[name]) for name in short)
    raise UserError(
        f"no node can hold {stage}: it asks for {asked}"
        + (f"; the largest has {largest}" if short else ", and no single one has all of it"),
        f"lower it in k8s/resources.yaml: stages.{stage}",
    )


def require_queue(
    queues: Sequence[Object], priorities: Sequence[Object], stage: str, resources: StageResources
) -> None:
    """Raise UserError if the stage's LocalQueue or its WorkloadPriorityClass is not among these."""
    for kind, key, wanted, there in (
        ("queue", "queue", resources.queue, queues),
        ("priority class", "priority", resources.priority, priorities),
    ):
        names = sorted(one["metadata"]["name"] for one in there)
        if wanted not in names:
            raise UserError(
                f"the cluster has no {kind} {wanted} for {stage}, only {', '.join(names) or 'none'}",
                f"set {key} in k8s/resources.yaml: stages.{stage}, or make it as k8s/queues does",
            )


def avoidable(
    nodes: Sequence[Object], avoid: Sequence[str], resources: StageResources
) -> list[str]:
    """Those of `avoid` in whose pool the other nodes have room for the stage now, were they empty.

    A Job stays away from them to its end, so one that has no other place would wait for a sick node.
    """
    wanted, tolerated = _wanted(resources), {one["key"] for one in tolerations(resources)}
    pool_of = {node["metadata"]["name"]: _pool(node) for node in nodes}
    room = Counter[str]()
    for node in nodes:
        if node["metadata"]["name"] not in avoid and _is_open(node, tolerated):
            room[_pool(node)] += int(min(_has(node, name) // wanted[name] for name in wanted))
    return [name for name in avoid if room[pool_of.get(name, "")] >= resources.num_nodes]


def kept_out(nodes: Sequence[Object], resources: StageResources) -> str:
    """Which of the nodes that could hold a pod are kept out as sick, and why; empty if none is."""
    able = [node for node in nodes if _fits(node, _wanted(resources))]
    causes = Counter(
        taint.get("value") or "no cause told"
        for node in able
        for taint in node["spec"].get("taints") or []
        if taint["key"] == UNHEALTHY_TAINT and taint["effect"] != "PreferNoSchedule"
    )
    if not causes:
        return ""
    told = ", ".join(f"{cause} ({number})" for cause, number in causes.most_common())
    return (
        f"{causes.total()} of {len(able)} nodes that could hold it are kept out as sick: {told}; "
        "`headrace nodes` says more"
    )


def _pool(node: Object) -> str:
    return str((node["metadata"].get("labels") or {}).get(POOL_LABEL, DEFAULT_POOL))


def _is_open(node: Object, tolerated: Collection[str]) -> bool:
    """Whether it is ready and takes new pods that tolerate taints of these keys."""
    taints = node["spec"].get("taints") or []
    ready = condition(node, "Ready") or {}
    return (
        ready.get("status") == "True"
        and not node["spec"].get("unschedulable")
        and all(one["effect"] == "PreferNoSchedule" or one["key"] in tolerated for one in taints)
    )


def _wanted(resources: StageResources) -> dict[str, float]:
    wanted = {
        "cpu": resources.cpu,
        "memory": resources.memory_gib * 2**30,
        "ephemeral-storage": resources.disk_gib * 2**30,
    }
    return wanted | ({GPU_RESOURCE: float(resources.gpus)} if resources.gpus else {})


def _has(node: Object, name: str) -> float:
    return quantity(node["status"].get("allocatable", {}).get(name, "0"))


def _could_have(node: Object, name: str) -> float:
    """With the GPUs that the device plugin holds back for now, as unhealthy: nothing else is held back
    of them, where other capacities are partly the node's own.
    """
    counted = node["status"].get("capacity", {}).get(name, "0") if name == GPU_RESOURCE else "0"
    return max(_has(node, name), quantity(counted))


def _fits(node: Object, wanted: Mapping[str, float]) -> bool:
    return all(_could_have(node, name) >= amount for name, amount in wanted.items())


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `2Gi` is 2 * 2**30, `1e3` is 1000."""
    number = text.rstrip("".join(UNITS))
    return float(Decimal(number) * UNITS[text[len(number) :]])


def _shown(name: str, amount: float) -> str:
    match name:
        case "cpu":
            return f"{amount:g} cores"
        case "memory":
            return f"{amount / 2**30:.1f} GiB"
        case "ephemeral-storage":
            return f"{amount / 2**30:.1f} GiB of disk"
        case _:
            return f"{amount:g} GPUs"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=config.home_root(root), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[0]
        raise UserError(f"git {arguments[0]}: {said}", "run from a git checkout")
    return done.stdout.strip()
