"""The manifests as `kubectl apply -k` would send them, and small questions about them."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from k8s.devcluster.build import program

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = ("kind", "gpu", "dev")
KUEUE = "kueue.x-k8s.io/v1beta2"
Object = dict[str, Any]


@cache
def kubectl() -> str:
    """The development cluster's, else this machine's; skips the test if there is neither."""
    for found in (program("kubectl"), shutil.which("kubectl")):
        if found and Path(found).exists():
            return found
    pytest.skip("no kubectl: make cluster-up builds one")


@cache
def text_of(overlay: str, components: tuple[str, ...] = ()) -> str:
    """What `kubectl kustomize` makes of the overlay, with the example's passwords."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, "k8s")
        for name in ("base", "queues", "overlays"):
            shutil.copytree(ROOT / "k8s" / name, copy / name)
        for example in copy.rglob("secrets.env.example"):
            shutil.copy(example, example.with_suffix(""))
        place = copy / "overlays" / overlay
        if components:
            with (place / "kustomization.yaml").open("a", encoding="utf-8") as file:
                file.write(f"components: [{', '.join(components)}]\n")
        done = subprocess.run(
            [kubectl(), "kustomize", str(place)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def objects_of(overlay: str, components: tuple[str, ...] = ()) -> list[Object]:
    return list(yaml.load_all(text_of(overlay, components), yaml.CSafeLoader))


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def name_of(one: Object) -> str:
    return str(one["metadata"]["name"])


def place_of(one: Object) -> tuple[str, str]:
    """Namespace and name; an empty namespace for what belongs to none."""
    return one["metadata"].get("namespace", ""), name_of(one)


def workloads(objects: Sequence[Object]) -> list[Object]:
    return of_kind(objects, "Deployment", "StatefulSet", "DaemonSet")


def agents(objects: Sequence[Object]) -> list[Object]:
    """The node agent, once or for several kinds of node."""
    accounts = ((one, pod_of(one)["serviceAccountName"]) for one in workloads(objects))
    return [one for one, account in accounts if account == "node-agent"]


def pod_of(workload: Object) -> Object:
    pod: Object = workload["spec"]["template"]["spec"]
    return pod


def containers_of(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def quotas(queue: Object) -> Iterator[tuple[str, str, Object]]:
    """Flavor, resource and the quota, for each of a ClusterQueue."""
    for group in queue["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            for resource in flavor["resources"]:
                yield flavor["name"], resource["name"], resource


def amount(quantity: str | int) -> float:
    """A Kubernetes quantity with the suffixes that the manifests use, as a plain number."""
    text = str(quantity)
    for suffix, factor in (("Gi", 2.0**30), ("Mi", 2.0**20), ("Ti", 2.0**40), ("m", 1e-3)):
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * factor
    return float(text)
