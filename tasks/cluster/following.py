"""Seeing a Job to its end: what it does is shown, its log is told, and its end gets a verdict."""

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from components.errors import InfraError, NodeUnhealthy
from tasks import outcome
from tasks.claim import GANG, PLACES, place_of
from tasks.cluster import api, checks
from tasks.cluster.api import Api, Away, Object, Refused, namespace_of
from tasks.cluster.cancel import cancel, pods_are_gone
from tasks.cluster.diagnose import FAILED_MOUNTS, Verdict, held_up, hopeless, stuck, verdict
from tasks.cluster.progress import JobProgress
from tasks.cluster.seen import JOB_NAME_LABEL, JOB_UID_LABEL, Seen, finished, workload_of
from tasks.cluster.signals import Signals
from tasks.cluster.signature import Signature
from tasks.cluster.situation import Situation, gang, order_in_queue, situation
from tasks.cluster.watching import Watched
from tasks.config import Settings, StageResources
from tasks.outcome import Outcome
from tasks.run_dir import RunDir, read_request

TICK_S = 0.5
ASK_INTERVAL_S = 5.0
"""Between two looks at the cluster's warnings."""
RESULT_WAIT_S = 30.0
"""For a network file system to show what a pod wrote last."""
RESULT_POLL_S = 0.2
LOOK_INTERVAL_S, LOOK_INTERVAL_S_EACH = 30.0, 0.5
"""Between two looks at the whole queue, or at all nodes, while the Job waits for them: at least, and for
each that is there. So those who wait are sent in proportion to their number, not to its square."""
NO_NODE = ("no node: ", "topology ")
"""In the scheduler's and in Kueue's words for why a Job waits."""
NOT_YET_RUNNING = ("queued", "preempted", "admitted", "starting")


def follow(
    server: Api, settings: Settings, run: RunDir, name: str, resources: StageResources,
    progress: JobProgress, signals: Signals,
) -> Verdict:  # fmt: skip
    """Show the Job `name` until it has ended and none of its pods runs; say how it ended.

    Raises InfraError if it is told to let go, or if the server does not answer for
    `settings.patience_s`: the Job goes on then.
    """
    follower = _Follower(server, settings, run, name, resources, progress)
    signature = Signature(server, settings.namespace, progress.say)
    watches: dict[str, Watched] = {}
    uid = ""
    with ExitStack() as stack:

        def watch(path: str, **which: str) -> None:
            watched = Watched(
                server, namespace_of(path, settings.namespace), signals.changed, **which
            )
            watches[path] = stack.enter_context(watched)

        watch(api.JOBS, fieldSelector=f"metadata.name={name}")
        watch(api.PODS, labelSelector=f"{JOB_NAME_LABEL}={name}")
        while True:
            _wait_for_lists(watches.values(), signals, settings.patience_s)
            signals.changed.clear()
            if not signals.came:
                _require_answers(watches.values(), settings.patience_s)
            job = watches[api.JOBS].objects().get(name)
            if job is not None and job["metadata"]["uid"] != uid:  # new, or made anew
                uid = job["metadata"]["uid"]
                watch(api.WORKLOADS, labelSelector=f"{JOB_UID_LABEL}={uid}")
                continue
            workloads = watches[api.WORKLOADS].objects().values() if uid else ()
            pods = tuple(watches[api.PODS].objects().values())
            seen = Seen(job, pods, workload_of(workloads, job), time.time())
            progress.relay()
            if signals.is_cancelled:
                return follower.cancelled()
            if signals.is_detached:
                raise InfraError(
                    f"stopped watching; the Job {name} goes on", "run it again to adopt it"
                )
            if job is not None:
                signature.put_on(job)
            follower.show(seen)
            found = follower.ended(seen)
            if found is not None:
                return found
            signals.changed.wait(TICK_S)


@dataclass
class _Looked:
    said: str = ""
    next_at: float = 0.0
    """Monotonic seconds, when to look again."""


class _Follower:
    def __init__(
        self, server: Api, settings: Settings, run: RunDir, name: str, resources: StageResources,
        progress: JobProgress,
    ) -> None:  # fmt: skip
        self._server, self._namespace, self._name = server, settings.namespace, name
        self._run, self._progress = run, progress
        self._attempt: int = read_request(run.path)["attempt"]
        self._resources = resources
        self._lost_s, self._pull_patience_s = settings.lost_s, settings.pull_patience_s
        self._wait_s = resources.grace_s + settings.lost_s
        """How long pods may take to end."""
        self._asked_at, self._gone_at = -ASK_INTERVAL_S, 0.0
        self._kept_out, self._place = _Looked(), _Looked()
        self._place_patience_s = settings.place_patience_s
        self._stuck_since = [time.monotonic()] * 2
        self._unmounted: dict[str, str] = {}

    def show(self, seen: Seen) -> None:
        """Say where the Job is; with its place in the queue and the cluster's warnings while it waits."""
        self._tell_gang(seen)
        now = situation(seen)
        if now.state in NOT_YET_RUNNING and time.monotonic() - self._asked_at > ASK_INTERVAL_S:
            self._asked_at = time.monotonic()
            self._tell_warnings(seen)
        told = [now.detail]
        if seen.workload and now.state in ("queued", "preempted"):
            told.insert(0, self._looked(self._place, partial(self._place_in, seen.workload)))
        if any(words in now.detail for words in NO_NODE):
            told.append(self._looked(self._kept_out, self._sick_nodes))
        self._progress.show(replace(now, detail="; ".join(filter(None, told))))

    def ended(self, seen: Seen) -> Verdict | None:
        """The verdict once there is one, and nothing runs any more; else None."""
        if seen.job is None:
            return self._of_a_deleted(seen)
        self._gone_at = 0.0
        match finished(seen.job):
            case "Complete":
                return self._of_a_complete()
            case "Failed":
                its_pods = f"{JOB_NAME_LABEL}={self._name}"
                pods_are_gone(self._server, self._namespace, its_pods, self._wait_s)
                self._progress.relay()
                self._tell_warnings(seen)
                return verdict(self._again(seen, its_pods), self._resources.memory_gib)
        found = hopeless(seen, self._lost_s, self._pull_patience_s) or self._still_stuck(seen)
        if found is not None:
            self._tell_warnings(seen)
            try:
                self._end(0.0 if found.kind == NodeUnhealthy.kind else self._wait_s)
            except InfraError as error:  # what was found says more than that the Job is still there
                self._progress.say(f"{error.message}; {error.hint}")
            self._progress.relay()
        return found

    def _end(self, wait_s: float) -> None:
        say = self._progress.say
        cancel(self._server, self._namespace, self._name, wait_s, say, insists=True)

    def _still_stuck(self, seen: Seen) -> Verdict | None:
        """What has kept a pod from starting for so long that it will not pass."""
        now = time.monotonic()
        causes = (
            (stuck(seen), self._pull_patience_s),
            (held_up(seen, self._unmounted), self._place_patience_s),
        )
        for index, (found, patience_s) in enumerate(causes):
            if found is None:
                self._stuck_since[index] = now
            elif now - self._stuck_since[index] > patience_s:
                return found
        return None

    def cancelled(self) -> Verdict:
        """End it, and wait for its checkpoint."""
        self._progress.show(Situation("stopping", "cancelled"))
        self._end(self._wait_s)
        self._progress.relay()
        return Verdict(InfraError.kind, f"{self._run.stage} was cancelled", "run it again")

    def _again(self, seen: Seen, its_pods: str) -> Seen:
        """With the pods as they ended: the watch of a Job may be ahead of that of its pods."""
        path = namespace_of(api.PODS, self._namespace)
        pods = {pod["metadata"]["name"]: pod for pod in seen.pods}
        with suppress(Away):
            for pod in self._server.get(path, labelSelector=its_pods)["items"]:
                pods[pod["metadata"]["name"]] = pod
        return replace(seen, pods=tuple(pods.values()))

    def _of_a_complete(self) -> Verdict:
        deadline = time.monotonic() + RESULT_WAIT_S
        while True:
            said = said_in_pod(self._run.path, self._attempt)
            # A pod before this one, of the same attempt, may have said that it was stopped.
            is_whole = said is not None and said.ok
            if is_whole or time.monotonic() > deadline:
                break
            time.sleep(RESULT_POLL_S)
        self._progress.relay()
        if said is None or not said.ok:
            return Verdict(
                InfraError.kind,
                "the Job is complete, but its result is not on the volume",
                "is the shared volume the same here and in the pods?",
            )
        return Verdict(said.kind, said.message, said.hint, said.node)

    def _of_a_deleted(self, seen: Seen) -> Verdict | None:
        self._gone_at = self._gone_at or time.monotonic()
        said = said_in_pod(self._run.path, self._attempt)
        if said is not None:
            return Verdict(said.kind, said.message, said.hint, said.node)
        live = [one for one in seen.pods if one["status"].get("phase") in ("Pending", "Running")]
        if live and time.monotonic() - self._gone_at < self._wait_s:
            return None
        return Verdict(
            InfraError.kind, f"the Job {self._name} is gone: somebody deleted it", "run it again"
        )

    def _tell_gang(self, seen: Seen) -> None:
        """Write who the pods of a gang are, once all of them are there and whenever one is replaced."""
        if seen.job is None or "subdomain" not in seen.job["spec"]["template"]["spec"]:
            return
        members, path = gang(seen), self._run.path / PLACES / GANG
        if members is not None and outcome.read_json(path) != members:
            path.parent.mkdir(exist_ok=True)
            outcome.write_json(path, members)

    def _looked(self, known: "_Looked", look: Callable[[], tuple[str, int]]) -> str:
        """What `look` says, asked now and then only; what it said before, while the server is away."""
        now = time.monotonic()
        if now >= known.next_at:
            known.next_at = now + LOOK_INTERVAL_S
            with suppress(Away, Refused):
                known.said, num_seen = look()
                known.next_at = now + max(LOOK_INTERVAL_S, LOOK_INTERVAL_S_EACH * num_seen)
        return known.said

    def _place_in(self, workload: Object) -> tuple[str, int]:
        path = namespace_of(api.WORKLOADS, self._namespace)
        waiting = self._server.get(path, fieldSelector=api.NOT_ADMITTED)["items"]
        place = order_in_queue(workload, waiting)
        return (f"place {place[0]} of {place[1]}" if place else ""), len(waiting)

    def _sick_nodes(self) -> tuple[str, int]:
        """Which nodes are kept out: the scheduler counts taints and does not name them."""
        nodes = self._server.get(api.NODES, resourceVersion="0")["items"]
        return checks.kept_out(nodes, self._resources), len(nodes)

    def _tell_warnings(self, seen: Seen) -> None:
        """Say what the cluster warns of: each event once. It is a help, so a server that is away is none."""
        names = {one["metadata"]["name"] for one in [*seen.pods, *filter(None, [seen.job])]}
        with suppress(Away, Refused):
            path = namespace_of(api.EVENTS, self._namespace)
            for event in self._server.get(path, fieldSelector="type=Warning")["items"]:
                name = event["involvedObject"].get("name")
                if name in names:
                    reason, message = event.get("reason", ""), event.get("message", "")
                    self._progress.event(event["metadata"]["uid"], reason, message)
                    if reason in FAILED_MOUNTS:
                        self._unmounted[name] = message


def said_in_pod(run_dir: Path, attempt: int) -> Outcome | None:
    """How the attempt ended, in the words of the pod that held the run last; None if it says nothing."""
    place = place_of(run_dir)
    said = outcome.read(place) if place else None
    return said if said is not None and said.attempt == attempt else None


def _wait_for_lists(watches: Iterable[Watched], signals: Signals, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not (signals.came or all(one.listed.is_set() for one in watches)):
        signals.changed.clear()
        if time.monotonic() > deadline:
            return
        signals.changed.wait(TICK_S)


def _require_answers(watches: Iterable[Watched], patience_s: float) -> None:
    for one in watches:
        if one.refusal:
            raise api.refusal(one.refusal)
        since = one.away_since  # read once: its thread may find the server there meanwhile
        away_s = time.monotonic() - since if since else 0.0
        if not one.listed.is_set() or away_s > patience_s:
            raise InfraError(
                f"Kubernetes has not answered for {patience_s:.0f} s",
                "the Job goes on; run it again to adopt it",
            )
