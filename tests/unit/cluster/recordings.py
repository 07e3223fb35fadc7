"""What a real cluster once said of Jobs, in `recorded/`: how it is kept, and how it is read again."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.cluster.seen import Seen

FOLDER = Path(__file__).parent / "recorded"

Object = dict[str, Any]

METADATA = ("name", "uid", "creationTimestamp", "deletionTimestamp")
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_UID = "kueue.x-k8s.io/job-uid"
SPECS = {
    "job": ("parallelism", "completions", "suspend"),
    "pod": ("nodeName",),
    "workload": ("active", "priority", "queueName"),
}
STATUSES = {
    "job": ("conditions", "active", "ready", "succeeded", "failed", "terminating"),
    "pod": (
        "phase", "reason", "message", "startTime", "conditions", "initContainerStatuses",
        "containerStatuses",
    ),
    "workload": ("conditions", "admissionChecks", "requeueState"),
}  # fmt: skip
CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")
CONTAINER = ("name", "image", "state")


def torn(full: Seen, is_left_out: Callable[[], bool]) -> Seen:
    """The same with some fields of each status left out, as an API leaves out what is empty."""
    job, pods, workload = copy.deepcopy((full.job, full.pods, full.workload))
    for one in filter(None, [job, *pods, workload]):
        for key in list(one["status"]):
            if is_left_out():
                del one["status"][key]
    return Seen(job, pods, workload, full.at)


def compact(look: Object) -> Object:
    """The fields that say something of a Job's way; the others would be most of the text."""
    return {
        "at": round(look["at"], 3),
        "job": look["job"] and compact_object("job", look["job"]),
        "workload": look["workload"] and compact_object("workload", look["workload"]),
        "pods": [compact_object("pod", pod) for pod in look["pods"]],
    }


def compact_object(kind: str, one: Object) -> Object:
    metadata = _some(one["metadata"], METADATA)
    if kind == "pod":
        metadata["annotations"] = _some(one["metadata"].get("annotations") or {}, (INDEX,))
    if kind == "workload":
        metadata["labels"] = _some(one["metadata"].get("labels") or {}, (JOB_UID,))
    status = _some(one.get("status") or {}, STATUSES[kind])
    for name in ("initContainerStatuses", "containerStatuses"):
        if name in status:
            status[name] = [_some(each, CONTAINER) for each in status[name]]
            for each in status[name]:
                for state in each["state"].values():
                    state.pop("containerID", None)
    if "conditions" in status:
        status["conditions"] = [_some(each, CONDITION) for each in status["conditions"]]
    return {"metadata": metadata, "spec": _some(one["spec"], SPECS[kind]), "status": status}


def document(name: str) -> Object:
    found: Object = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def seen(name: str) -> Seen:
    """What was known of one Job at the moment of the recording."""
    found = document(name)
    return Seen(found["job"], tuple(found["pods"]), found["workload"], found["at"])


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def _some(of: Object, keys: tuple[str, ...]) -> Object:
    return {key: of[key] for key in keys if key in of}
