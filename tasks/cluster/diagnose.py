"""What a Job, its pods and its Workload say of a stage: where it is, and how it ended. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from components.errors import (
    DataError,
    InfraError,
    NodeUnhealthy,
    StageError,
    UserError,
)
from components.preflight.report import from_json

Object = dict[str, Any]
State = Literal[
    "submitted", "queued", "admitted", "starting", "running", "stopping", "preempted", "ended"
]
ERROR_OF_EXIT_CODE: Mapping[int, type[StageError]] = {
    one.exit_code: one for one in (UserError, DataError, NodeUnhealthy, StageError, InfraError)
}
AGAIN = "run it again: it goes on from its last checkpoint"
USELESS_PULLS = ("InvalidImageName", "ErrImageNeverPull")
FAILED_PULLS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", *USELESS_PULLS)
MAX_EVICTIONS = 2
"""By a kubelet that runs short of something: the next pod would fare no better."""


@dataclass(frozen=True)
class Seen:
    """What is known at one moment."""

    job: Object | None
    pods: Sequence[Object]
    workload: Object | None
    at: float
    """Unix seconds."""


@dataclass(frozen=True)
class Situation:
    state: State
    detail: str = ""
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" on {', '.join(self.nodes)}" if self.nodes else ""
        return f"{self.state}{where}{': ' if self.detail else ''}{self.detail}"


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended, as far as the cluster can tell."""

    kind: str
    message: str
    hint: str
    node: str = ""


def situation(seen: Seen) -> Situation:
    """Where the Job is on its way."""
    if seen.job is None:
        return Situation("submitted")
    if finished(seen.job):
        return Situation("ended", nodes=_nodes(seen.pods))
    live = [pod for pod in seen.pods if _is_live(pod)]
    ending = [pod for pod in live if pod["metadata"].get("deletionTimestamp")]
    if seen.job["spec"].get("suspend"):
        evicted = _condition(seen.workload, "Evicted")
        if evicted and evicted["status"] == "True":
            state: State = "stopping" if live else "preempted"
            why = f"{_evicted_for(seen.workload, evicted)}; {_waits_for(seen.workload)}"
            return Situation(state, why.rstrip("; "), _nodes(ending))
        return Situation("queued", _waits_for(seen.workload))
    running = [pod for pod in live if pod["status"].get("phase") == "Running"]
    if ending and not any(pod for pod in running if pod not in ending):
        return Situation("stopping", nodes=_nodes(ending))
    wanted = int(seen.job["spec"].get("parallelism", 1))
    if running and len(running) >= wanted:
        return Situation("running", nodes=_nodes(running))
    if not live:
        made = [pod for pod in seen.pods if not _disruption(pod)]
        return Situation("ended" if made else "admitted", nodes=_nodes(made))
    return Situation("starting", "; ".join(_waits(live)), _nodes(live))


def finished(job: Object) -> Literal["Complete", "Failed", ""]:
    """Only these two are an end: SuccessCriteriaMet, FailureTarget and Suspended come before one."""
    for condition in job["status"].get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return "Complete" if condition["type"] == "Complete" else "Failed"
    return ""


def verdict(seen: Seen, memory_gib: float) -> Verdict:
    """Why a Job failed, from what its pods' containers said last. The gravest reason of all pods counts."""
    found = [one for one in (_of_pod(pod, memory_gib) for pod in seen.pods) if one]
    if found:
        return min(found, key=lambda one: _GRAVITY.index(one.kind))
    failed = _condition(seen.job, "Failed") or {}
    said = f"{failed.get('reason', 'no reason')}: {failed.get('message', '')}".rstrip(": ")
    return Verdict(InfraError.kind, f"the Job failed without a word of its pods: {said}", AGAIN)


_GRAVITY = (UserError.kind, DataError.kind, NodeUnhealthy.kind, StageError.kind, InfraError.kind)
"""Of ranks that fail together, one has the reason and the others only lost it."""


def hopeless(seen: Seen, lost_s: float, pull_patience_s: float) -> Verdict | None:
    """Why waiting is of no use, although the Job has not ended; None while it may be."""
    out_of_time = _condition(seen.workload, "Evicted")
    if (
        out_of_time
        and out_of_time["status"] == "True"
        and "MaximumExecutionTime" in out_of_time.get("reason", "")
    ):
        return Verdict(
            UserError.kind,
            "its time limit is over",
            "raise time_limit_h in k8s/resources.yaml; it goes on from its last checkpoint",
        )
    for pod in seen.pods:
        found = _pull_failed(pod, seen.at, pull_patience_s) or _is_lost(pod, seen.at, lost_s)
        if found:
            return found
    evicted = [pod for pod in seen.pods if _disruption(pod) == "TerminationByKubelet"]
    if len(evicted) >= MAX_EVICTIONS:
        why = evicted[-1]["status"].get("message", "its node ran short of something")
        return Verdict(
            UserError.kind,
            f"evicted {len(evicted)} times: {_first_line(why)}",
            "its nodes have too little for all that they run: state more memory_gib and scratch_gib",
            evicted[-1]["spec"].get("nodeName", ""),
        )
    return None


def order_in_queue(workload: Object, others: Sequence[Object]) -> tuple[int, int]:
    """(place from 1, how many wait) among those that wait for quota: by priority, then by age.

    As Kueue sorts them; one that was evicted counts from then on.
    """
    queue = workload["spec"].get("queueName")
    waiting = [
        one
        for one in others
        if one["spec"].get("queueName") == queue
        and one["spec"].get("active", True)
        and not _holds(one, "QuotaReserved")
        and not _holds(one, "Finished")
    ]
    waiting.sort(key=_queue_order)
    names = [one["metadata"]["name"] for one in waiting]
    name = workload["metadata"]["name"]
    return (names.index(name) + 1 if name in names else len(names) + 1), len(names)


def _queue_order(workload: Object) -> tuple[int, str]:
    evicted = _condition(workload, "Evicted")
    since = workload["metadata"]["creationTimestamp"]
    if evicted and evicted["status"] == "True":
        since = max(since, evicted["lastTransitionTime"])
    return -int(workload["spec"].get("priority") or 0), since


def gang(seen: Seen) -> list[str] | None:
    """The names of a gang's pods in the order of their numbers; None until all of them are there."""
    if seen.job is None or seen.job["spec"].get("suspend"):
        return None
    names: dict[int, str] = {}
    for pod in seen.pods:
        if _is_live(pod) and not pod["metadata"].get("deletionTimestamp"):
            index = int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
            names[index] = pod["metadata"]["name"]
    wanted = int(seen.job["spec"]["parallelism"])
    return [names[i] for i in range(wanted)] if set(names) == set(range(wanted)) else None


def _of_pod(pod: Object, memory_gib: float) -> Verdict | None:
    status = pod.get("status", {})
    node = pod["spec"].get("nodeName", "")
    if status.get("reason") == "Evicted" and "exceeds the" in status.get("message", ""):
        return Verdict(
            UserError.kind,
            f"evicted from {node}: {_first_line(status['message'])}",
            "raise scratch_gib in k8s/resources.yaml",
            node,
        )
    for container in [
        *(status.get("containerStatuses") or []),
        *(status.get("initContainerStatuses") or []),
    ]:
        ended = (container.get("state") or {}).get("terminated")
        if not ended or ended.get("exitCode") == 0:
            continue
        if ended.get("reason") == "OOMKilled":
            return Verdict(
                UserError.kind,
                f"ran out of memory: {container['name']} on {node} had {memory_gib:g} GiB",
                "raise memory_gib in k8s/resources.yaml, or make the model or the batch smaller",
                node,
            )
        if container["name"] == "preflight":
            return _of_preflight(ended, node)
        return _of_stage(ended, node, _disruption(pod))
    return None


def _of_preflight(ended: Object, node: str) -> Verdict:
    error = ERROR_OF_EXIT_CODE.get(ended["exitCode"], StageError)
    if error is NodeUnhealthy:
        why = "; ".join(_findings(ended, "fail")) or "it did not say why"
        return Verdict(
            error.kind,
            f"{node} failed its pre-check: {why}",
            "the next attempt goes to another node; `headrace nodes` says more",
            node,
        )
    said = "; ".join(_findings(ended, "inconclusive")) or "without a word"
    return Verdict(
        error.kind,
        f"the pre-check on {node} ended with exit code {ended['exitCode']}: {said}",
        AGAIN if error is InfraError else "see `kubectl logs` of the pod's container preflight",
        node,
    )


def _findings(ended: Object, status: str) -> list[str]:
    """The messages of a report's findings of this status; of no report, its first line."""
    message = ended.get("message", "")
    try:
        findings = from_json(json.loads(message)).findings
    except (ValueError, DataError):
        return [_first_line(message)] if message else []
    return [one.message for one in findings if one.status == status]


def _of_stage(ended: Object, node: str, disruption: str) -> Verdict:
    said = _outcome(ended.get("message", ""))
    if said:
        return Verdict(said["kind"], said["message"], said["hint"], node)
    code = int(ended["exitCode"])
    if disruption or code in (137, 143):
        why = disruption or "a signal"
        return Verdict(InfraError.kind, f"the pod on {node} was ended by {why}", AGAIN, node)
    error = ERROR_OF_EXIT_CODE.get(code, StageError)
    line = _first_line(ended.get("message", "")) or "without a word"
    return Verdict(error.kind, f"ended with exit code {code}: {line}", "see its log", node)


def _outcome(message: str) -> Object | None:
    """What tasks.container wrote as the container's last words; None for anything else."""
    try:
        said = json.loads(message)
    except ValueError:
        return None
    is_one = isinstance(said, dict) and {"kind", "message", "hint"} <= said.keys()
    return said if is_one and said["kind"] != "ok" else None


def _pull_failed(pod: Object, now: float, patience_s: float) -> Verdict | None:
    since = _instant(pod["metadata"].get("creationTimestamp"))
    for container in [
        *(pod["status"].get("initContainerStatuses") or []),
        *(pod["status"].get("containerStatuses") or []),
    ]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, said = waiting.get("reason", ""), _first_line(waiting.get("message", ""))
        if reason not in FAILED_PULLS:
            continue
        is_absent = reason in USELESS_PULLS or "not found" in said
        if is_absent or now - since > patience_s:
            kind = UserError if is_absent else InfraError
            return Verdict(
                kind.kind,
                f"the image {container['image']} cannot be pulled: {reason} {said}".rstrip(),
                "is it built and pushed? HEADRACE_IMAGE names it",
                pod["spec"].get("nodeName", ""),
            )
    return None


def _is_lost(pod: Object, now: float, lost_s: float) -> Verdict | None:
    """A pod that was asked to end, and whose node has said nothing of it since."""
    deleted_at = pod["metadata"].get("deletionTimestamp")  # the end of its grace period
    if not deleted_at or not _is_live(pod) or now - _instant(deleted_at) < lost_s:
        return None
    node = pod["spec"].get("nodeName", "")
    return Verdict(
        NodeUnhealthy.kind,
        f"{node} does not answer: the pod {pod['metadata']['name']} should have ended long ago",
        "the next attempt goes to another node; what the old pod still writes is fenced off",
        node,
    )


def _waits_for(workload: Object | None) -> str:
    """Kueue's own words for why a Workload has no quota yet."""
    if workload is None:
        return "Kueue has not seen it yet"
    reserved = _condition(workload, "QuotaReserved")
    if reserved and reserved["status"] != "True":
        return _first_line(reserved.get("message", ""))
    return ""


def _evicted_for(workload: Object | None, evicted: Object) -> str:
    preempted = _condition(workload, "Preempted") or {}
    reasons = [evicted.get("reason", "")]
    if preempted.get("status") == "True":
        reasons.append(preempted.get("reason", ""))
    return " ".join(dict.fromkeys(filter(None, reasons)))


def _waits(pods: Sequence[Object]) -> list[str]:
    """What keeps pods from running, each reason once."""
    found: dict[str, None] = {}
    for pod in pods:
        status = pod["status"]
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                found[f"no node: {_first_line(condition.get('message', ''))}"] = None
        for container in status.get("initContainerStatuses") or []:
            if (container.get("state") or {}).get("running"):
                found["the pre-check runs"] = None
        for container in [
            *(status.get("initContainerStatuses") or []),
            *(status.get("containerStatuses") or []),
        ]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in (None, "PodInitializing"):
                said = f"{waiting['reason']} {_first_line(waiting.get('message', ''))}"
                found[said.strip()] = None
    return list(found)


def _nodes(pods: Sequence[Object]) -> tuple[str, ...]:
    return tuple(sorted({pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")}))


def _is_live(pod: Object) -> bool:
    return pod["status"].get("phase") not in ("Succeeded", "Failed")


def _disruption(pod: Object) -> str:
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return str(condition.get("reason", "DisruptionTarget"))
    return ""


def _condition(of: Object | None, kind: str) -> Object | None:
    conditions = ((of or {}).get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), None)


def _holds(workload: Object, kind: str) -> bool:
    condition = _condition(workload, kind)
    return condition is not None and condition["status"] == "True"


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:400]


def _instant(timestamp: str | None) -> float:
    if not timestamp:
        return 0.0
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
