"""How a Job ended, or why it never will, from what it, its pods and its Workload say. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from components.errors import (
    DataError,
    InfraError,
    NodeUnhealthy,
    StageError,
    UserError,
)
from components.preflight.report import from_json
from tasks.cluster.seen import Object, Seen, condition, disruption, first_line, instant, is_live

ERROR_OF_EXIT_CODE: Mapping[int, type[StageError]] = {
    one.exit_code: one for one in (UserError, DataError, NodeUnhealthy, StageError, InfraError)
}
AGAIN = "run it again: it goes on from its last checkpoint"
USELESS_PULLS = ("InvalidImageName", "ErrImageNeverPull")
FAILED_PULLS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", *USELESS_PULLS)
MAX_EVICTIONS = 2
"""By a kubelet that runs short of something: the next pod would fare no better."""


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended, as far as the cluster can tell."""

    kind: str
    message: str
    hint: str
    node: str = ""


def verdict(seen: Seen, memory_gib: float) -> Verdict:
    """Why a Job failed, from what its pods' containers said last. The gravest reason of all pods counts."""
    found = [one for one in (_of_pod(pod, memory_gib) for pod in seen.pods) if one]
    if found:
        return min(found, key=lambda one: _GRAVITY.index(one.kind))
    failed = condition(seen.job, "Failed") or {}
    said = f"{failed.get('reason', 'no reason')}: {failed.get('message', '')}".rstrip(": ")
    return Verdict(InfraError.kind, f"the Job failed without a word of its pods: {said}", AGAIN)


_GRAVITY = (UserError.kind, DataError.kind, NodeUnhealthy.kind, StageError.kind, InfraError.kind)
"""Of ranks that fail together, one has the reason and the others only lost it."""


def hopeless(seen: Seen, lost_s: float, pull_patience_s: float) -> Verdict | None:
    """Why waiting is of no use, although the Job has not ended; None while it may be."""
    out_of_time = condition(seen.workload, "Evicted")
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
    evicted = [pod for pod in seen.pods if disruption(pod) == "TerminationByKubelet"]
    if len(evicted) >= MAX_EVICTIONS:
        why = evicted[-1]["status"].get("message", "its node ran short of something")
        return Verdict(
            UserError.kind,
            f"evicted {len(evicted)} times: {first_line(why)}",
            "its nodes have too little for all that they run: state more memory_gib and scratch_gib",
            evicted[-1]["spec"].get("nodeName", ""),
        )
    return None


def _of_pod(pod: Object, memory_gib: float) -> Verdict | None:
    status = pod.get("status", {})
    node = pod["spec"].get("nodeName", "")
    if status.get("reason") == "Evicted" and "exceeds the" in status.get("message", ""):
        return Verdict(
            UserError.kind,
            f"evicted from {node}: {first_line(status['message'])}",
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
        return _of_stage(ended, node, disruption(pod))
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
        return [first_line(message)] if message else []
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
    line = first_line(ended.get("message", "")) or "without a word"
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
    since = instant(pod["metadata"].get("creationTimestamp"))
    for container in [
        *(pod["status"].get("initContainerStatuses") or []),
        *(pod["status"].get("containerStatuses") or []),
    ]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, said = waiting.get("reason", ""), first_line(waiting.get("message", ""))
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
    if not deleted_at or not is_live(pod) or now - instant(deleted_at) < lost_s:
        return None
    node = pod["spec"].get("nodeName", "")
    return Verdict(
        NodeUnhealthy.kind,
        f"{node} does not answer: the pod {pod['metadata']['name']} should have ended long ago",
        "the next attempt goes to another node; what the old pod still writes is fenced off",
        node,
    )
