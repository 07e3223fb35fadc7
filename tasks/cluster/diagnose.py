"""How a Job ended, or why it never will, from what it, its pods and its Workload say. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.errors import (
    ERROR_OF_KIND,
    DataError,
    InfraError,
    NodeUnhealthy,
    StageError,
    UserError,
)
from components.preflight.report import ON_SHARED_VOLUME, from_json
from tasks.cluster.seen import (
    Object,
    Seen,
    condition,
    containers,
    disruption,
    first_line,
    instant,
    is_live,
    last_line,
)

ERROR_OF_EXIT_CODE: Mapping[int, type[StageError]] = {
    one.exit_code: one for one in ERROR_OF_KIND.values()
}
AGAIN = "run it again: it goes on from its last checkpoint"
USELESS_PULLS = ("InvalidImageName", "ErrImageNeverPull")
FAILED_PULLS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", *USELESS_PULLS)
FAILED_MOUNTS = ("FailedMount", "FailedAttachVolume")
"""The reasons of events."""
FAILED_STARTS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
BY_A_SIGNAL = (137, 143)
"""The exit codes of SIGKILL and SIGTERM."""
NO_CLAIM = re.compile(r'persistentvolumeclaim "[^"]*" not found')
"""In the scheduler's words."""
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
    # A pod that was driven out has been replaced: the Job did not fail for its sake.
    own = [pod for pod in seen.pods if not disruption(pod)]
    for pods in (own, seen.pods):
        found = [one for one in (_of_pod(pod, memory_gib) for pod in pods) if one]
        if found:
            return min(found, key=lambda one: _GRAVITY.index(one.kind))
    failed = condition(seen.job, "Failed") or {}
    said = f"{failed.get('reason', 'no reason')}: {failed.get('message', '')}".rstrip(": ")
    return Verdict(InfraError.kind, f"the Job failed without a word of its pods: {said}", AGAIN)


_GRAVITY = (UserError.kind, DataError.kind, NodeUnhealthy.kind, StageError.kind, InfraError.kind)
"""Of ranks that fail together, one has the reason and the others only lost it."""


def hopeless(seen: Seen, lost_s: float, pull_patience_s: float) -> Verdict | None:
    """Why waiting is of no use, although the Job has not ended; None while it may be."""
    found = _given_up(seen.workload)
    if found:
        return found
    for pod in seen.pods:
        found = _pull_failed(pod, seen.at, pull_patience_s) or _is_lost(pod, seen.at, lost_s)
        if found:
            return found
    # Of a node that is shut down a kubelet says TerminationByKubelet too; but not Evicted.
    evicted = [
        pod
        for pod in seen.pods
        if pod["status"].get("reason") == "Evicted" and disruption(pod) == "TerminationByKubelet"
    ]
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
    for container in reversed(containers(pod)):
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
        said = _outcome(ended.get("message", ""))
        if said:
            return Verdict(said["kind"], said["message"], said["hint"], node)
        if disruption(pod) or ended["exitCode"] in BY_A_SIGNAL:
            why = disruption(pod) or "a signal"
            return Verdict(InfraError.kind, f"the pod on {node} was ended by {why}", AGAIN, node)
        return (_of_preflight if container["name"] == "preflight" else _of_stage)(ended, node)
    if status.get("phase") == "Failed" and status.get("reason"):  # no container of it ever ran
        why = f"{status['reason']} on {node}: {first_line(status.get('message', ''))}"
        return Verdict(InfraError.kind, why, AGAIN, node)
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
    if error is InfraError:
        room = "make room on the shared volume, then run it again"
        hint = room if ON_SHARED_VOLUME in said else AGAIN
        return Verdict(error.kind, f"the pre-check on {node} could not tell: {said}", hint, node)
    return Verdict(
        error.kind,
        f"the pre-check on {node} ended with exit code {ended['exitCode']}: {said}",
        "see `kubectl logs` of the pod's container preflight",
        node,
    )


def _findings(ended: Object, status: str) -> list[str]:
    """The messages of a report's findings of this status; of no report, its last line."""
    message = ended.get("message", "")
    try:
        findings = from_json(json.loads(message)).findings
    except (ValueError, DataError):
        return list(filter(None, [last_line(message)]))
    return [one.message for one in findings if one.status == status]


def _of_stage(ended: Object, node: str) -> Verdict:
    """Of one that had no time for an outcome: all there is of it is the end of its log."""
    code = int(ended["exitCode"])
    error = ERROR_OF_EXIT_CODE.get(code, StageError)
    line = last_line(ended.get("message", "")) or "without a word"
    return Verdict(error.kind, f"ended with exit code {code}: {line}", "see its log", node)


def _outcome(message: str) -> Object | None:
    """What tasks.container wrote as the container's last words; None for anything else."""
    try:
        said = json.loads(message)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("kind") not in ERROR_OF_KIND:
        return None
    is_whole = all(isinstance(said.get(name), str) for name in ("message", "hint"))
    return said if is_whole else None


def _given_up(workload: Object | None) -> Verdict | None:
    """What Kueue has set inactive by itself; by a person's hand it may be set active again."""
    evicted = condition(workload, "Evicted")
    if workload is None or workload["spec"].get("active", True) or not evicted:
        return None
    if "MaximumExecutionTime" in evicted.get("reason", ""):
        return Verdict(
            UserError.kind,
            "its time limit is over",
            "raise time_limit_h in k8s/resources.yaml; it goes on from its last checkpoint",
        )
    if evicted.get("reason", "").startswith("DeactivatedDueTo"):
        why = f"Kueue gave it up: {first_line(evicted.get('message', ''))}"
        return Verdict(InfraError.kind, why, AGAIN)
    return None


def _pull_failed(pod: Object, now: float, patience_s: float) -> Verdict | None:
    since = instant(pod["status"].get("startTime") or pod["metadata"].get("creationTimestamp"))
    for container, reason, said in _waiting(pod):
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


def stuck(seen: Seen) -> Verdict | None:
    """What keeps a pod from starting now: if that lasts, waiting does not mend it."""
    return next((one for one in map(_cannot_start, seen.pods) if one), None)


def _cannot_start(pod: Object) -> Verdict | None:
    node = pod["spec"].get("nodeName", "")
    for container, reason, said in _waiting(pod):
        if reason in FAILED_STARTS:
            is_absent = reason == "CreateContainerConfigError" and "not found" in said
            return Verdict(
                (UserError if is_absent else InfraError).kind,
                f"{container['name']} cannot start on {node}: {reason} {said}".rstrip(),
                f"`kubectl describe pod {pod['metadata']['name']}` says more",
                node,
            )
    unplaced = condition(pod, "PodScheduled") or {}
    said = first_line(unplaced.get("message", ""))
    if unplaced.get("status") == "False" and NO_CLAIM.search(said):
        hint = "create it as k8s/base does; HEADRACE_CLAIM names it"
        return Verdict(UserError.kind, f"no volume for the pod: {said}", hint)
    return None


def held_up(seen: Seen, unmounted: Mapping[str, str]) -> Verdict | None:
    """What keeps an admitted pod from its node or its volume now: a while is usual, for others end first.

    `unmounted`: by the names of pods, what the cluster last said of a volume that could not be mounted.
    """
    for pod in seen.pods:
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        if pod["status"].get("phase") != "Pending" or pod["metadata"].get("deletionTimestamp"):
            continue
        placed = condition(pod, "PodScheduled") or {}
        if placed.get("status") == "False" and placed.get("reason") == "Unschedulable":
            why = f"no node takes the pod: {first_line(placed.get('message', ''))}"
            return Verdict(
                InfraError.kind, why, "`headrace nodes` says which are kept out, and why"
            )
        # Once its volumes are there it is said to be ready to start: what was said before is over.
        begun = condition(pod, "PodReadyToStartContainers") or {}
        if name in unmounted and begun.get("status") == "False":
            why = f"a volume cannot be mounted on {node}: {first_line(unmounted[name])}"
            return Verdict(
                InfraError.kind, why, "is the volume's server up? then run it again", node
            )
    return None


def _waiting(pod: Object) -> Iterator[tuple[Object, str, str]]:
    """The containers that wait, each with the reason and its message."""
    for container in containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        yield container, waiting.get("reason", ""), first_line(waiting.get("message", ""))


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
