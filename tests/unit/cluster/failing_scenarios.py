"""The ways of a Job that fails, or never will end: each is played on a real cluster and recorded."""

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from components.preflight.report import Finding, Report
from components.preflight.termination import compact as shortened
from tasks.cluster import api
from tasks.cluster.api import namespace_of
from tasks.cluster.manifest import QUEUE_LABEL
from tasks.outcome import Outcome
from tests.unit.cluster.record import (
    CHECKS,
    NAMESPACE,
    REGISTRY_PORT,
    Cluster,
    Object,
    ended,
    evicted,
    is_live,
    phase_is,
    reserved,
    waits_for,
)
from tests.unit.cluster.scenarios import WORKS

IGNORES_SIGTERM = "exec sleep 600"


def words(kind: str, exit_code: int, message: str, hint: str) -> str:
    """Ends as tasks.container does."""
    ended = Outcome("pretrain", "k", kind, exit_code, message, hint, "dev-1", 1, 0.0, 1.0, 0.1)
    text = shlex.quote(json.dumps(asdict(ended)))
    return f"printf %s {text} > /dev/termination-log; exit {exit_code}"


def report(exit_code: int, *findings: Finding) -> str:
    """Ends as components.preflight does."""
    text = shlex.quote(shortened(Report("dev-1", 0.0, "none", findings, 0.1)))
    return f"printf %s {text} > /dev/termination-log; exit {exit_code}"


def failed(cluster: Cluster) -> None:
    """Each way a container can end a Job."""
    disk = Finding("disk_space", "fail", "/tmp is 99% used, allowed 95%", True)
    asked = Finding("clock", "inconclusive", "no answer of the time service in 5 s")
    stages: dict[str, tuple[str, str]] = {
        "stage-64": (words("user", 64, "the number is wrong", "mend it"), "a user's error"),
        "stage-65": (words("data", 65, "the shard is empty", ""), "a data error"),
        "stage-70": (words("bug", 70, "ZeroDivisionError: by zero", "see the log"), "a bug"),
        "stage-75": (words("infra", 75, "the store was away", ""), "an infrastructure error"),
        "stage-69-without-words": ("echo one; echo two; exit 69", "69 after two lines of log"),
        "stage-python": (
            "python -c 'raise RuntimeError(\"nobody expected this\")'", "a Python traceback"
        ),
        "stage-137": ("exit 137", "137 and nothing said"),
        "stage-out-of-memory": ("exec python -c 'bytearray(10**9)'", "1 GB in 64 MiB of memory"),
    }  # fmt: skip
    for label, (stage, what) in stages.items():
        memory_gib = 0.0625 if label == "stage-out-of-memory" else 0.25
        name = cluster.submit(label, stage, memory_gib=memory_gib, shared_memory_gib=0.01)
        cluster.keep(label, f"a Job whose stage ends with {what}", name, ended)
    preflights = {
        "preflight-64": ("echo 'wrong usage'; exit 64", "64 after a line of log"),
        "preflight-69": (report(69, disk, asked), "a report of a failed check"),
        "preflight-75": (report(75, asked), "a report of an inconclusive check"),
        "preflight-137": ("exit 137", "137 and nothing said"),
    }
    for label, (preflight, what) in preflights.items():
        name = cluster.submit(label, WORKS, preflight=preflight)
        cluster.keep(label, f"a Job whose pre-check ends with {what}", name, ended)

    def of_no_program(job: Object) -> None:
        job["spec"]["template"]["spec"]["containers"][0]["command"] = ["/absent"]

    name = cluster.submit("stage-absent", "", change=of_no_program)
    cluster.keep("stage-absent", "a Job whose stage's program is not in the image", name, ended)


def gang_failed(cluster: Cluster) -> None:
    out = words("user", 64, "ran out of memory", "make the batch smaller")
    lost = words("infra", 75, "NCCL: a rank was lost", "")
    here = f"{cluster.folder}/ready"
    meet = f"touch {here}-$JOB_COMPLETION_INDEX; until [ -e {here}-0 -a -e {here}-1 ]; do :; done"
    stage = f'{meet}; [ "$JOB_COMPLETION_INDEX" = 1 ] && {{ {out}; }}; {lost}'
    name = cluster.submit("gang-failed", stage, num_nodes=2, min_nodes=2)
    made = (
        "a Job of two pods: the second ends with a user's error, the first with what it lost by it"
    )
    cluster.keep("gang-failed", made, name, ended)


def scratch(cluster: Cluster) -> None:
    fills = "while :; do head -c 1000000 /dev/zero >> /tmp/full; sleep 0.01; done"
    name = cluster.submit("scratch", fills, scratch_gib=0.02)
    made = "a Job whose stage writes more to /tmp than its volume's limit"
    cluster.keep("evicted-for-scratch", made, name, ended)


def images(cluster: Cluster) -> None:
    for label, image, reason, what in (
        ("image-name", "dev.local/Not An Image:1", "InvalidImageName", "has an impossible name"),
        (
            "image-absent", f"127.0.0.1:{REGISTRY_PORT}/headrace:absent", "ImagePullBackOff",
            "is not in the registry, which answers 404",
        ),
        (
            "image-no-registry", "dev.local/headrace:absent", "ErrImagePull",
            "is of a registry whose name nobody knows",
        ),
    ):  # fmt: skip
        name = cluster.submit(label, WORKS, image=image)
        until = waits_for(reason, "initContainerStatuses")
        cluster.keep(label, f"a Job whose image {what}", name, until)


def unschedulable(cluster: Cluster) -> None:
    def elsewhere(job: Object) -> None:
        job["spec"]["template"]["spec"]["nodeSelector"] = {"headrace.dev/absent": "true"}

    name = cluster.submit("no-node", WORKS, change=elsewhere)
    made = "a Job whose pod wants a label that no node has"
    cluster.keep("no-node", made, name, lambda seen: seen["pods"][0]["status"]["conditions"])


def refused_by_kubelet(cluster: Cluster) -> None:
    def bound(job: Object) -> None:
        job["metadata"]["labels"].pop(QUEUE_LABEL)
        job["spec"]["template"]["spec"]["nodeName"] = "dev-1"

    name = cluster.submit("no-room", WORKS, change=bound, cpu=64)
    made = "a Job without a queue, bound to a node by its name: its kubelet has no 64 cores"
    cluster.keep("refused-by-kubelet", made, name, ended)


def bound_to(node: str) -> Callable[[Object], None]:
    """To a node that does not exist: a pod there is as on one that has gone silent.

    The cluster collects such pods after a minute, so each scenario has a node of its own.
    """

    def change(job: Object) -> None:
        job["spec"]["template"]["spec"]["nodeName"] = node

    return change


def silent(cluster: Cluster) -> None:
    name = cluster.submit("silent", WORKS, change=bound_to("silent"))
    cluster.wait(name, phase_is("Pending"))
    cluster.api.delete(namespace_of(api.PODS, NAMESPACE, cluster.pod(name)))
    made = "a Job whose pod, on a node that does not exist, was deleted with 5 s of grace"
    cluster.keep(
        "silent-node", made, name, lambda seen: seen["pods"][0]["metadata"]["deletionTimestamp"]
    )


def driven_out(cluster: Cluster) -> None:
    """No kubelet here can be short of memory, so the words of one (1.34) are given to the pods."""
    ways = {
        "evicted-twice": (
            "Evicted",
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 60Mi. ",
        ),
        "shut-down-twice": (
            "Terminated", "Pod was terminated in response to imminent node shutdown."
        ),
    }  # fmt: skip
    for label, (reason, message) in ways.items():
        name = cluster.submit(label, WORKS, change=bound_to(label))
        seen = cluster.wait(name, phase_is("Pending"))
        for num_ended in range(2):
            (pod,) = filter(is_live, seen["pods"])
            target = {
                "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
                "message": message, "lastTransitionTime": pod["metadata"]["creationTimestamp"],
            }  # fmt: skip
            body = {"phase": "Failed", "reason": reason, "message": message, "conditions": [target]}
            path = namespace_of(api.PODS, NAMESPACE, f"{pod['metadata']['name']}/status")
            cluster.api.patch(path, {"status": body})
            after = phase_is(*["Failed"] * (num_ended + 1), "Pending")
            seen = cluster.wait(name, after, label)
        made = f"a Job whose pods' status was twice set to what a kubelet says: {message}"
        cluster.keep(label, made, name, phase_is("Failed", "Failed", "Pending"))


def deleted(cluster: Cluster) -> None:
    name = cluster.submit("deleted", IGNORES_SIGTERM)
    cluster.wait(name, phase_is("Running"))
    cluster.api.delete(namespace_of(api.JOBS, NAMESPACE, name))
    made = "the pods of a Job that somebody deleted; they have 5 s to end"
    cluster.keep("deleted", made, name, lambda seen: seen["job"] is None and seen["pods"])


def out_of_time(cluster: Cluster) -> None:
    name = cluster.submit("out-of-time", WORKS, time_limit_h=3 / 3600)
    made = "a Job that had 3 s in all"
    cluster.keep("out-of-time", made, name, lambda seen: evicted(seen) and not seen["pods"])


def deactivated(cluster: Cluster) -> None:
    name = cluster.submit("deactivated", WORKS)
    seen = cluster.wait(name, phase_is("Running"))
    cluster.patch(api.WORKLOADS, seen["workload"]["metadata"]["name"], {"spec": {"active": False}})
    made = "a Job whose Workload somebody has set inactive"
    cluster.keep("deactivated", made, name, lambda seen: evicted(seen) and not seen["pods"])


def admission_check(cluster: Cluster) -> None:
    """The check's controller is this program: it lets the Job wait, then rejects it."""
    group = "kueue.x-k8s.io/v1beta2"
    check = {
        "apiVersion": group, "kind": "AdmissionCheck", "metadata": {"name": NAMESPACE},
        "spec": {"controllerName": "headrace.dev/recorder"},
    }  # fmt: skip
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    cluster.api.create(CHECKS, check)
    active = {
        "type": "Active", "status": "True", "reason": "Active", "message": "", "lastTransitionTime": now,
    }  # fmt: skip
    cluster.api.patch(f"{CHECKS}/{NAMESPACE}/status", {"status": {"conditions": [active]}})
    queue = f"/apis/kueue.x-k8s.io/v1beta2/clusterqueues/{NAMESPACE}"
    checks: dict[str, Any] = {"admissionChecks": [{"name": NAMESPACE}]}
    cluster.api.patch(queue, {"spec": {"admissionChecksStrategy": checks}})
    try:
        name = cluster.submit("checked", WORKS)
        seen = cluster.wait(name, lambda seen: seen["workload"]["status"]["admissionChecks"])
        made = "a Job that has its quota, and waits for the queue's admission check"
        seen = cluster.keep("checked", made, name, lambda seen: reserved(seen["workload"]))
        rejected = {
            "name": NAMESPACE, "state": "Rejected", "message": "no machine can be had",
            "lastTransitionTime": now,
        }  # fmt: skip
        workload = f"{seen['workload']['metadata']['name']}/status"
        cluster.patch(api.WORKLOADS, workload, {"status": {"admissionChecks": [rejected]}})
        cluster.keep("rejected", "the same Job, rejected by the check", name, evicted)
    finally:
        cluster.api.patch(queue, {"spec": {"admissionChecksStrategy": None}})


SCENARIOS: dict[str, Callable[[Cluster], None]] = {
    one.__name__: one
    for one in (
        failed,
        gang_failed,
        scratch,
        images,
        unschedulable,
        refused_by_kubelet,
        silent,
        driven_out,
        deleted,
        out_of_time,
        deactivated,
        admission_check,
    )
}
