"""Where a Job is on its way, from what it, its pods and its Workload say. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.cluster.seen import (
    Object,
    Seen,
    condition,
    containers,
    disruption,
    finished,
    first_line,
    holds,
    is_live,
)

State = Literal[
    "submitted", "queued", "admitted", "starting", "running", "stopping", "preempted", "ended"
]

BACK_TO_THE_END = ("PodsReadyTimeout", "AdmissionCheck")
"""Why a Workload was evicted, if its age counts from then on (Kueue's GetQueueOrderTimestamp): one
that was preempted keeps its place."""


@dataclass(frozen=True)
class Situation:
    state: State
    detail: str = ""
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" on {', '.join(self.nodes)}" if self.nodes else ""
        return f"{self.state}{where}{': ' if self.detail else ''}{self.detail}"


def situation(seen: Seen) -> Situation:
    """Where the Job is on its way."""
    live = [pod for pod in seen.pods if is_live(pod)]
    if seen.job is None and live:
        return Situation("stopping", "its Job is gone", _nodes(live))
    if seen.job is None:
        return Situation("submitted")
    if finished(seen.job):
        return Situation("ended", nodes=_nodes(seen.pods))
    ending = [pod for pod in live if pod["metadata"].get("deletionTimestamp")]
    if seen.job["spec"].get("suspend"):
        evicted = condition(seen.workload, "Evicted")
        if evicted and evicted["status"] == "True":
            state: State = "stopping" if live else "preempted"
            why = f"{_evicted_for(seen.workload, evicted)}; {_waits_for(seen.workload)}"
            return Situation(state, why.rstrip("; "), _nodes(ending))
        return Situation("queued", _waits_for(seen.workload))
    running = [pod for pod in live if pod["status"].get("phase") == "Running"]
    if ending and not any(pod for pod in running if pod not in ending):
        return Situation("stopping", nodes=_nodes(ending))
    done = [pod for pod in seen.pods if pod["status"].get("phase") == "Succeeded"]
    if running and len(running) + len(done) >= int(seen.job["spec"].get("parallelism", 1)):
        return Situation("running", nodes=_nodes(running))
    if not live:
        made = [pod for pod in seen.pods if not disruption(pod)]
        return Situation("ended" if made else "admitted", nodes=_nodes(made))
    return Situation("starting", "; ".join(_waits(live)), _nodes(live))


def order_in_queue(workload: Object, others: Sequence[Object]) -> tuple[int, int] | None:
    """(place from 1, how many wait) among those of `others` that wait for quota in its queue.

    As Kueue sorts them: by priority, then by age. None if it does not wait for quota itself.
    """
    queue = workload["spec"].get("queueName")
    waiting = [
        one
        for one in others
        if one["spec"].get("queueName") == queue
        and one["spec"].get("active", True)
        and not holds(one, "QuotaReserved")
        and not holds(one, "Finished")
    ]
    waiting.sort(key=_queue_order)
    names = [one["metadata"]["name"] for one in waiting]
    name = workload["metadata"]["name"]
    return (names.index(name) + 1, len(names)) if name in names else None


def _queue_order(workload: Object) -> tuple[int, str]:
    evicted = condition(workload, "Evicted")
    since = workload["metadata"]["creationTimestamp"]
    if evicted and evicted["status"] == "True" and evicted.get("reason") in BACK_TO_THE_END:
        since = evicted["lastTransitionTime"]
    return -int(workload["spec"].get("priority") or 0), since


def gang(seen: Seen) -> list[str] | None:
    """The names of a gang's pods in the order of their numbers; None until all of them are there."""
    if seen.job is None or seen.job["spec"].get("suspend"):
        return None
    names: dict[int, str] = {}
    for pod in seen.pods:
        if is_live(pod) and not pod["metadata"].get("deletionTimestamp"):
            index = int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
            names[index] = pod["metadata"]["name"]
    wanted = int(seen.job["spec"]["parallelism"])
    return [names[i] for i in range(wanted)] if set(names) == set(range(wanted)) else None


def _waits_for(workload: Object | None) -> str:
    """Kueue's own words for why a Workload has no quota yet; with quota, what it waits for still."""
    if workload is None:
        return "Kueue has not seen it yet"
    reserved = condition(workload, "QuotaReserved")
    if reserved and reserved["status"] != "True":
        return first_line(reserved.get("message", ""))
    if reserved is None or holds(workload, "Evicted"):
        return ""
    checks = workload["status"].get("admissionChecks") or []
    return "; ".join(
        f"the admission check {one['name']} is {one['state']}"
        for one in checks
        if one["state"] != "Ready"
    )


def _evicted_for(workload: Object | None, evicted: Object) -> str:
    preempted = condition(workload, "Preempted") or {}
    reasons = [evicted.get("reason", "")]
    if preempted.get("status") == "True":
        reasons.append(preempted.get("reason", ""))
    return " ".join(dict.fromkeys(filter(None, reasons)))


def _waits(pods: Sequence[Object]) -> list[str]:
    """What keeps pods from running, each reason once."""
    found: dict[str, None] = {}
    for pod in pods:
        status = pod["status"]
        for one in status.get("conditions") or []:
            if one["type"] == "PodScheduled" and one["status"] == "False":
                found[f"no node: {first_line(one.get('message', ''))}"] = None
        for container in status.get("initContainerStatuses") or []:
            if (container.get("state") or {}).get("running"):
                found["the pre-check runs"] = None
        for container in containers(pod):
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in (None, "PodInitializing"):
                said = f"{waiting['reason']} {first_line(waiting.get('message', ''))}"
                found[said.strip()] = None
    return list(found)


def _nodes(pods: Sequence[Object]) -> tuple[str, ...]:
    return tuple(sorted({pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")}))
