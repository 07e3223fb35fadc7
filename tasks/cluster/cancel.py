"""Ending a Job so that its stage can write a checkpoint first."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from components.errors import InfraError
from tasks import outcome
from tasks.cluster.api import (
    JOBS,
    PODS,
    WORKLOADS,
    Api,
    Away,
    Object,
    Refused,
    connect,
    namespace_of,
    patiently,
)
from tasks.cluster.names import job_name, project_of
from tasks.cluster.seen import JOB_NAME_LABEL, JOB_UID_LABEL, is_live
from tasks.config import Settings, load_resources
from tasks.run_dir import latest_run, read_request

CANCELLED = "headrace.dev/cancelled"
"""An annotation: this Job is not to be adopted any more."""
POLL_S = 0.5
PATIENCE_S = 30.0
"""With a server that is away, at least."""


def cancel_stages(root: Path, stages: Iterable[str], settings: Settings) -> list[str]:
    """Cancel the Jobs that the workspace's newest attempts at `stages` still have; return their names."""
    names, wait_s, project = [], settings.lost_s, project_of(root, settings.claim)
    resources = load_resources(root)
    for stage in stages:
        run = latest_run(root, stage)
        request = read_request(run) if run else {}
        said = outcome.read(run) if run else None
        is_over = said is not None and said.attempt == request.get("attempt")
        if request.get("launcher") == "kubernetes" and not is_over:
            names.append(job_name(project, stage, request["key"], request["attempt"]))
            wait_s = max(wait_s, resources.of(stage).grace_s + settings.lost_s)
    if names:
        server = connect()
        with ThreadPoolExecutor(len(names)) as pool:
            end = partial(cancel, server, settings.namespace, wait_s=wait_s, insists=True)
            list(pool.map(end, names))
    return names


def cancel(
    api: Api, namespace: str, name: str, wait_s: float, say: Callable[[str], object] = print,
    *, insists: bool = False,
) -> None:  # fmt: skip
    """Suspend the Job, wait until its pods have ended or `wait_s` is over, and delete it.

    By way of Kueue: a Job that is suspended behind its back is resumed by it. Who `insists` has it
    deleted at once while Kueue is away, which guards a Job's changes but not its deletion, and asks
    for that for `wait_s`, or for PATIENCE_S if that is longer; its pods have their grace period all
    the same. A Job that is gone is no error. Raises InfraError if it could not be deleted.
    """
    path, is_by_kueue = namespace_of(JOBS, namespace, name), True
    patience_s = max(wait_s, PATIENCE_S) if insists else 0.0
    try:
        try:
            if not _suspend(api, namespace, name, wait_s):
                return
        except Away as away:
            if not insists:
                raise
            is_by_kueue = False
            say(f"the Job {name} is deleted without Kueue's doing: {away}")
        patiently(partial(api.delete, path), patience_s, say)
        if not is_by_kueue:
            pods_are_gone(api, namespace, f"{JOB_NAME_LABEL}={name}", wait_s)
    except (Away, Refused, InfraError) as error:
        raise InfraError(
            f"the Job {name} could not be ended: {error}",
            f"kubectl -n {namespace} delete job {name}",
        ) from error


def _suspend(api: Api, namespace: str, name: str, wait_s: float) -> bool:
    """Have Kueue stop the Job, and wait for its pods; False if the Job is gone."""
    mark = {"metadata": {"annotations": {CANCELLED: "true"}}}
    job = _unless_gone(partial(api.patch, namespace_of(JOBS, namespace, name), mark))
    if job is None:
        return False
    selector = f"{JOB_UID_LABEL}={job['metadata']['uid']}"
    workloads = api.get(namespace_of(WORKLOADS, namespace), labelSelector=selector)["items"]
    for workload in workloads:
        its = namespace_of(WORKLOADS, namespace, workload["metadata"]["name"])
        _unless_gone(partial(api.patch, its, {"spec": {"active": False}}))
    if workloads:
        pods_are_gone(api, namespace, f"{JOB_NAME_LABEL}={name}", wait_s)
    return True


def _unless_gone(ask: Callable[[], Object]) -> Object | None:
    """What `ask` gives; None if it asks for something that is not there."""
    try:
        return ask()
    except Refused as no:
        if no.status != 404:
            raise
        return None


def pods_are_gone(
    api: Api, namespace: str, selector: str, wait_s: float,
    pause: Callable[[float], object] = time.sleep,
) -> bool:  # fmt: skip
    """Wait until no pod of `selector` runs or is about to; False if `wait_s` was too short.

    Raises Refused, or what `pause` raises to end the waiting.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            pods = api.get(namespace_of(PODS, namespace), labelSelector=selector)["items"]
            if not any(map(is_live, pods)):
                return True
        except Away:
            pass
        if time.monotonic() > deadline:
            return False
        pause(POLL_S)
