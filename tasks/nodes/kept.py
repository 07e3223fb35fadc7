"""What the controller keeps in memory of Nodes and pods: what its judgement reads, and no more.

Whole, a pod is 98 kB as dicts, and thousands that have ended stay for a week. What the judgement
comes to read besides must be added here; tests/unit/nodes/test_kept.py says so.
"""

from collections.abc import Mapping
from typing import Any

from tasks.cluster.api import Object
from tasks.nodes.names import GPU_RESOURCE, PREFLIGHT_CONTAINER

Json = Mapping[str, Any]

PREFIX = "headrace.dev/"
"""Of our own labels and annotations; nobody else's are read."""
NODE_METADATA = ("name", "uid", "resourceVersion")
POD_METADATA = ("namespace", "name", "uid", "deletionTimestamp")
END = ("exitCode", "finishedAt", "message")


def kept_node(node: Json) -> Object:
    meta = node["metadata"]
    return {
        "metadata": {
            **_some(meta, NODE_METADATA),
            "labels": _ours(meta.get("labels") or {}),
            "annotations": _ours(meta.get("annotations") or {}),
        },
        "spec": _some(node.get("spec") or {}, ("taints",)),
        "status": {
            "capacity": _some((node.get("status") or {}).get("capacity") or {}, (GPU_RESOURCE,))
        },
    }


def kept_pod(pod: Json) -> Object:
    status = pod.get("status") or {}
    ends = [
        {"name": one["name"], "state": {"terminated": _some(one["state"]["terminated"], END)}}
        for one in status.get("initContainerStatuses") or ()
        if one["name"] == PREFLIGHT_CONTAINER and (one.get("state") or {}).get("terminated")
    ]
    return {
        "metadata": _some(pod["metadata"], POD_METADATA),
        "spec": _some(pod.get("spec") or {}, ("nodeName",)),
        "status": {**_some(status, ("phase",)), "initContainerStatuses": ends},
    }


def _some(of: Json, keys: tuple[str, ...]) -> Object:
    return {key: of[key] for key in keys if key in of}


def _ours(of: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in of.items() if key.startswith(PREFIX)}
