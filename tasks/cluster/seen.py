"""What the API server says of one Job at one moment, and how to read it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Object = dict[str, Any]
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""On a Job's pods."""
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
"""On a Job's Workload."""


@dataclass(frozen=True)
class Seen:
    """What is known at one moment."""

    job: Object | None
    pods: Sequence[Object]
    workload: Object | None
    at: float
    """Unix seconds."""


def finished(job: Object) -> Literal["Complete", "Failed", ""]:
    """Only these two are an end: SuccessCriteriaMet, FailureTarget and Suspended come before one."""
    for one in job["status"].get("conditions") or []:
        if one["type"] in ("Complete", "Failed") and one["status"] == "True":
            return "Complete" if one["type"] == "Complete" else "Failed"
    return ""


def workload_of(workloads: Iterable[Object], job: Object | None) -> Object | None:
    """The Workload that Kueue made for a Job."""
    if job is None:
        return None
    for one in workloads:
        if (one["metadata"].get("labels") or {}).get(JOB_UID_LABEL) == job["metadata"]["uid"]:
            return one
    return None


def containers(pod: Object) -> list[Object]:
    """The statuses of a pod's containers, in the order in which they run."""
    status = pod["status"]
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]


def is_live(pod: Object) -> bool:
    return pod["status"].get("phase") not in ("Succeeded", "Failed")


def disruption(pod: Object) -> str:
    found = condition(pod, "DisruptionTarget")
    if found is None or found["status"] != "True":
        return ""
    return str(found.get("reason", "DisruptionTarget"))


def condition(of: Object | None, kind: str) -> Object | None:
    conditions = ((of or {}).get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), None)


def holds(workload: Object, kind: str) -> bool:
    found = condition(workload, kind)
    return found is not None and found["status"] == "True"


def first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:400]


def last_line(text: str) -> str:
    """Of the end of a log: an exception's own words, where its first line is any line."""
    return (text.strip().splitlines() or [""])[-1][:400]


def instant(timestamp: str | None) -> float:
    if not timestamp:
        return 0.0
    return datetime.fromisoformat(timestamp).timestamp()
