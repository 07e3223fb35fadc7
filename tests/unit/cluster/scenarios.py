"""The ways of a Job that goes well, or waits: each is played on a real cluster and recorded."""

import time
from collections.abc import Callable

from tasks.cluster import api
from tasks.cluster.api import namespace_of
from tests.unit.cluster.record import (
    NAMESPACE,
    Cluster,
    Object,
    ended,
    evicted,
    is_live,
    phase_is,
    reserved,
    write,
)
from tests.unit.cluster.recordings import compact_object

WORKS = "trap 'exit 75' TERM; sleep 600 & wait"


def queued(cluster: Cluster) -> None:
    first = cluster.submit("first", WORKS, cpu=0.6)
    cluster.wait(first, phase_is("Running"))
    made = "a Job for 0.6 of a core, in a queue whose one core another Job has 0.6 of"
    second = cluster.submit("second", WORKS, cpu=0.6)
    cluster.keep("queued", made, second, lambda seen: seen["workload"]["status"]["conditions"])


def admitted(cluster: Cluster) -> None:
    def privileged(job: Object) -> None:
        stage = job["spec"]["template"]["spec"]["containers"][0]
        stage["securityContext"]["allowPrivilegeEscalation"] = True

    name = cluster.submit("admitted", WORKS, change=privileged)
    made = "a Job with its quota, whose pods the namespace's policy forbids"
    cluster.keep("admitted", made, name, lambda seen: not seen["job"]["spec"]["suspend"])


def running(cluster: Cluster) -> None:
    name = cluster.submit("running", WORKS, preflight="sleep 3")
    made = "a Job whose init container sleeps"
    cluster.keep(
        "pre-check-runs", made, name,
        lambda seen: seen["pods"][0]["status"]["initContainerStatuses"][0]["state"]["running"],
    )  # fmt: skip
    cluster.keep("running", "the same Job after it", name, phase_is("Running"))


def complete(cluster: Cluster) -> None:
    name = cluster.submit("complete", "true")
    cluster.keep("complete", "a Job whose container exits with 0", name, ended)


def gang(cluster: Cluster) -> None:
    name = cluster.submit("gang", WORKS, num_nodes=2, min_nodes=2)
    cluster.keep("gang", "a Job of two pods", name, phase_is("Running", "Running"))
    slow = '[ "$JOB_COMPLETION_INDEX" = 0 ] || sleep 4'
    name = cluster.submit("gang-starts", WORKS, preflight=slow, num_nodes=2, min_nodes=2)
    made = "a Job of two pods, one of which is still in its init container"
    cluster.keep("gang-starts", made, name, phase_is("Running", "Pending"))
    faster = f'[ "$JOB_COMPLETION_INDEX" = 1 ] && exit 0; {WORKS}'
    name = cluster.submit("gang-one-done", faster, num_nodes=2, min_nodes=2)
    made = "a Job of two pods, of which the second has exited with 0"
    cluster.keep("gang-one-done", made, name, phase_is("Running", "Succeeded"))


def elastic(cluster: Cluster) -> None:
    name = cluster.submit("elastic", WORKS, num_nodes=3, min_nodes=1, cpu=0.4)
    made = "a Job of one to three pods of 0.4 of a core each, in a queue with one core"
    cluster.keep("elastic", made, name, phase_is("Running", "Running"))


def preempted(cluster: Cluster) -> None:
    low = cluster.submit("low", "trap 'sleep 2; exit 75' TERM; sleep 600 & wait", cpu=0.6)
    cluster.wait(low, phase_is("Running"))
    cluster.submit("high", WORKS, cpu=0.6, priority="production")
    made = "a Job that one of a higher priority has preempted; its pod takes 2 s to end"
    cluster.keep(
        "preempted-stopping", made, low,
        lambda seen: evicted(seen) and seen["pods"][0]["metadata"]["deletionTimestamp"],
    )  # fmt: skip
    cluster.keep(
        "preempted", "the same Job when its pod has ended", low,
        lambda seen: evicted(seen) and not seen["pods"] and not reserved(seen["workload"]),
    )  # fmt: skip


def order(cluster: Cluster) -> None:
    """Four Jobs for one place, and the order in which Kueue lets them in."""
    again = "sleep 2; exit 0"
    first = cluster.submit(
        "order-first", f"mkdir {cluster.folder}/was || {{ {again}; }}; {WORKS}", cpu=0.6
    )
    cluster.wait(first, phase_is("Running"))
    names = {first: "first"}
    for label, priority in (("low", "background"), ("late", "research"), ("later", "research")):
        names[cluster.submit(f"order-{label}", again, cpu=0.6, priority=priority)] = label
        time.sleep(1.2)  # their creation is told in whole seconds
    high = cluster.submit("order-high", "sleep 3", cpu=0.6, priority="production")
    cluster.wait(first, lambda seen: evicted(seen) and not reserved(seen["workload"]))
    cluster.wait(high, lambda seen: reserved(seen["workload"]))
    path = namespace_of(api.WORKLOADS, NAMESPACE)
    waiting = cluster.api.get(path)["items"]
    let_in: dict[str, None] = {}
    deadline = time.monotonic() + 60
    while len(let_in) < len(names) and time.monotonic() < deadline:
        for one in cluster.api.get(path)["items"]:
            owner = one["metadata"]["ownerReferences"][0]["name"]
            if owner in names and reserved(one):
                let_in[one["metadata"]["name"]] = None
        time.sleep(0.05)
    made = "one Job runs; the others wait for its place: the first was preempted by it, then come \
one of a lower priority and two of the first one's, each made after the one before"
    workloads = [compact_object("workload", one) for one in waiting]
    write("queue", {"made_by": made, "let_in": [*let_in], "workloads": workloads})


def drained(cluster: Cluster) -> None:
    name = cluster.submit("drained", "trap 'sleep 2; exit 75' TERM; sleep 600 & wait")
    cluster.wait(name, phase_is("Running"))
    pod = cluster.pod(name)
    eviction = {
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }  # fmt: skip
    cluster.api.create(namespace_of(api.PODS, NAMESPACE, f"{pod}/eviction"), eviction)
    made = "a Job whose pod was asked to leave by the Eviction API, as `kubectl drain` does"
    cluster.keep(
        "drained-stopping",
        made,
        name,
        lambda seen: seen["pods"][0]["metadata"]["deletionTimestamp"],
    )
    made = "the same Job when the pod has ended, before there is another"
    cluster.keep("drained", made, name, lambda seen: not any(map(is_live, seen["pods"])))


SCENARIOS: dict[str, Callable[[Cluster], None]] = {
    one.__name__: one
    for one in (queued, admitted, running, complete, gang, elastic, preempted, order, drained)
}
