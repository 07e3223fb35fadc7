"""The cluster's launcher: a stage as a Kueue Job, submitted or adopted by its name.

The Job outlives this process. Whoever asks for the same attempt again finds it, and goes on where
this one stopped reading its log.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from components.contract import Json
from tasks import outcome
from tasks.claim import PLACES, settle
from tasks.cluster import api, checks
from tasks.cluster.api import Away, Object, Refused, namespace_of, patiently, refusals_typed
from tasks.cluster.cancel import CANCELLED, pods_are_gone
from tasks.cluster.following import follow, said_in_pod
from tasks.cluster.manifest import (
    Attempt,
    Place,
    is_gang,
    left_behind,
    load_template,
    operators_folder,
    owned,
    render,
)
from tasks.cluster.names import KEY_LABEL, PROJECT_LABEL, is_of, job_name, project_of
from tasks.cluster.progress import JobProgress
from tasks.cluster.seen import finished
from tasks.cluster.signals import Signals
from tasks.config import Settings, StageResources
from tasks.outcome import Outcome
from tasks.run_dir import RunDir, read_request

KEPT_S = 3600
"""How long after its end a Job is there whose end has been told, for whoever looks."""


class KubernetesLauncher:
    def __init__(self, settings: Settings, root: Path) -> None:
        checks.require_volume(root, settings.volume)
        checks.require_image(root, settings)
        self._settings, self._project = settings, project_of(root, settings.claim)
        self._api = api.connect()
        self._signals = Signals()

    def goes_on(self, run: RunDir, before: Mapping[str, Json]) -> bool:
        """Whether the attempt of the request `before` needs no new one: its Job, or its result, is there."""
        if before.get("launcher") != "kubernetes":
            return False
        said = outcome.read(run.path)
        if said is not None and said.attempt == before["attempt"]:
            return False
        with refusals_typed():
            job = self._find(self._job_name(run, before), time.sleep)
        if job is not None:
            return CANCELLED not in (job["metadata"].get("annotations") or {})
        return said_in_pod(run.path, before["attempt"]) is not None

    def run(self, run: RunDir, resources: StageResources) -> Outcome:
        """Submit or adopt the request's Job and see it to its end.

        SIGINT cancels it. SIGTERM leaves it running and raises InfraError: who asks again adopts it.
        """
        began_at, request = time.time(), read_request(run.path)
        name = self._job_name(run, request)
        progress = JobProgress(run, name)
        with self._signals, refusals_typed():
            job = self._find(name, self._signals.pause)
            if job is not None:
                progress.say(f"adopted the Job {name}")
                if not finished(job):  # whoever made it may have died before it made its Service
                    _, *others = self._rendered(run, request, resources)
                    self._create_services(others, job, progress)
            elif said_in_pod(run.path, request["attempt"]) is None:
                self._clear_away(run, name, resources, progress)
                self._submit(run, request, resources, progress)
            found = follow(self._api, self._settings, run, name, resources, progress, self._signals)
            if found.kind == "ok":
                self._let_go(name)
        said = said_in_pod(run.path, request["attempt"])
        settle(run.path)
        ended = replace(
            said or _blank(run, began_at),
            kind=found.kind, message=found.message, hint=found.hint,
            exit_code=outcome.exit_code_of(found.kind),
        )  # fmt: skip
        if not said:
            ended = replace(ended, node=found.node, elapsed_s=round(time.time() - began_at, 3))
        progress.end(ended)
        return ended

    def _let_go(self, name: str) -> None:
        """Let the Job be removed soon: nobody will ask for it again. One that failed is kept for people."""
        with suppress(Refused, Away):
            path = namespace_of(api.JOBS, self._settings.namespace, name)
            self._api.patch(path, {"spec": {"ttlSecondsAfterFinished": KEPT_S}})

    def _job_name(self, run: RunDir, request: Mapping[str, Json]) -> str:
        return job_name(self._project, run.stage, run.key, request["attempt"])

    def _find(self, name: str, pause: Callable[[float], object]) -> Object | None:
        path = namespace_of(api.JOBS, self._settings.namespace, name)
        try:
            return patiently(lambda: self._api.get(path), self._settings.patience_s, _print, pause)
        except Refused as no:
            if no.status == 404:
                return None
            raise

    def _ask(self, ask: Callable[[], Object], progress: JobProgress) -> Object:
        return patiently(ask, self._settings.patience_s, progress.say, self._signals.pause)

    def _clear_away(
        self, run: RunDir, name: str, resources: StageResources, progress: JobProgress
    ) -> None:
        """See that nothing of an earlier attempt at the same key runs any more."""
        selector = f"{KEY_LABEL}={run.key}"  # of Jobs without a project, too
        path = namespace_of(api.JOBS, self._settings.namespace)
        jobs = self._ask(lambda: self._api.get(path, labelSelector=selector), progress)["items"]
        for job in jobs:
            is_earlier = job["metadata"]["name"] != name and is_of(job, self._project, run.path)
            if is_earlier and not finished(job):
                progress.say(f"ending the Job {job['metadata']['name']} of an earlier attempt")
                self._api.delete(f"{path}/{job['metadata']['name']}")
        wait_s = resources.grace_s + self._settings.lost_s
        pause, its_pods = self._signals.pause, f"{PROJECT_LABEL}={self._project},{selector}"
        if not pods_are_gone(self._api, self._settings.namespace, its_pods, wait_s, pause):
            progress.say("a pod of an earlier attempt does not end; what it writes is fenced off")

    def _submit(
        self, run: RunDir, request: Mapping[str, Json], resources: StageResources,
        progress: JobProgress,
    ) -> None:  # fmt: skip
        queues = namespace_of(api.LOCAL_QUEUES, self._settings.namespace)
        nodes, its_queues, priorities = (
            self._ask(partial(self._api.get, path), progress)
            for path in (api.NODES, queues, api.PRIORITIES)
        )
        checks.require_queue(its_queues["items"], priorities["items"], run.stage, resources)
        if not self._settings.autoscales:
            checks.require_fit(nodes["items"], run.stage, resources)
        avoid = checks.avoidable(nodes["items"], request["avoid_nodes"], resources)
        job, *others = self._rendered(run, request, resources, avoid)
        _hand_over(run, self._place(run.root))
        path = namespace_of(api.JOBS, self._settings.namespace)
        try:
            made = self._ask(lambda: self._api.create(path, job), progress)
        except Refused as no:
            if no.status != 409:  # another launch of the same attempt was faster
                raise
            made = self._ask(lambda: self._api.get(f"{path}/{job['metadata']['name']}"), progress)
        self._create_services(others, made, progress)
        for line in left_behind(run.stage, os.environ):
            progress.say(line)
        progress.say(f"submitted the Job {job['metadata']['name']} to the queue {resources.queue}")

    def _rendered(
        self, run: RunDir, request: Mapping[str, Json], resources: StageResources,
        avoid: Sequence[str] = (),
    ) -> list[Object]:  # fmt: skip
        attempt = Attempt(
            run.stage, run.key, request["attempt"], run.path, request["flow_run"], tuple(avoid)
        )
        template = load_template(run.root, of_gang=is_gang(run.stage, resources))
        return render(template, attempt, resources, self._place(run.root))

    def _create_services(
        self, services: Sequence[Object], job: Object, progress: JobProgress
    ) -> None:
        path = namespace_of(api.SERVICES, self._settings.namespace)
        for service in services:
            try:
                self._ask(partial(self._api.create, path, owned(service, job)), progress)
            except Refused as no:
                if no.status != 409:  # made before
                    raise

    def _place(self, root: Path) -> Place:
        settings = self._settings
        uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (1000, 1000)
        return Place(
            settings.namespace, settings.image, settings.claim, settings.volume, root.resolve(),
            uid, gid, settings.dev, self._project,
        )  # fmt: skip


def _hand_over(run: RunDir, place: Place) -> None:
    """Make the run's folders the pods' user's, where root launches for another."""
    folders = [run.path, run.path / PLACES, run.cache]
    if place.is_dev:
        folders.append(operators_folder(run.path))
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        for folder in folders:
            os.chown(folder, place.uid, place.gid)
            for path in folder.rglob("*"):
                os.chown(path, place.uid, place.gid, follow_symlinks=False)


def _blank(run: RunDir, began_at: float) -> Outcome:
    attempt = read_request(run.path)["attempt"]
    return Outcome(run.stage, run.key, "", 0, "", "", "", attempt, round(began_at, 3), 0.0, 0.0)


def _print(line: str) -> None:
    print(line, flush=True)
