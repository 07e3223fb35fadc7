"""A stage's Job as tests render it, and the schemas of Kubernetes that it has to keep."""

from pathlib import Path
from typing import Any

import kubernetes_validate

from tasks.cluster.manifest import (
    Attempt,
    Place,
    load_template,
    render,
)
from tasks.config import StageResources

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = load_template(ROOT)
Object = dict[str, Any]

PLACE = Place(
    "headrace", "registry.example/headrace:abc", "claim", Path("/v"), Path("/v/p"), 1000, 1000,
    is_dev=False, project="abcdef01",
)  # fmt: skip


def attempt(stage: str, number: int = 1, key: str = "0123456789ab") -> Attempt:
    return Attempt(stage, key, number, Path("/v/p/runs") / stage / key, "a-flow-run")


def rendered(stage: str, of: StageResources, place: Place = PLACE) -> tuple[Object, Object | None]:
    job, *others = render(TEMPLATE, attempt(stage), of, place)
    return job, others[0] if others else None


def containers(job: Object) -> list[Object]:
    pod = job["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def environment(job: Object) -> dict[str, str]:
    """Of the stage's container, what has a plain value."""
    (stage,) = job["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in stage["env"] if "value" in one}


def require_valid(one: Object) -> None:
    assert kubernetes_validate.validate(one, "1.34", strict=True).startswith("1.34")
