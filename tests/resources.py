"""A stage's resources, small enough for any machine."""

import json

from tasks.config import StageResources

DEFAULT: dict[str, object] = {
    "num_ranks": 1, "retries": 2, "num_nodes": 1, "min_nodes": 1, "queue": "data",
    "priority": "research", "gpus": 0, "cpu": 0.1, "memory_gib": 0.5, "shared_memory_gib": 0.1,
    "scratch_gib": 1.0, "time_limit_h": 1.0, "grace_s": 20,
}  # fmt: skip


def resources(**changes: object) -> StageResources:
    return StageResources.model_validate(DEFAULT | changes)


def resources_yaml(stages: dict[str, dict[str, object]] | None = None, **changes: object) -> str:
    """The text of k8s/resources.yaml: JSON is YAML."""
    return json.dumps({"default": DEFAULT | changes, "stages": stages or {}})
