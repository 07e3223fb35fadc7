"""What the agent, the controller and the command ask of the API server."""

from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import InfraError, UserError
from tasks.cluster.api import NODES, PODS, Api, Away, Object, Refused, namespace_of
from tasks.nodes.effects import Tell
from tasks.nodes.instants import rfc3339
from tasks.nodes.names import STAGE_LABEL
from tasks.nodes.observed import PodRef

EVENTS = "/api/v1/namespaces/default/events"
"""Where the Events about what has no namespace go."""
NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"
GONE, CONFLICT = 404, 409
NO_RIGHTS = (401, 403)


def list_nodes(api: Api, selector: str) -> list[Object]:
    return list(api.get(NODES, labelSelector=selector)["items"])


def list_stage_pods(api: Api, namespace: str) -> list[Object]:
    """Those that have not ended: of the others there are thousands."""
    path = namespace_of(PODS, namespace)
    return list(api.get(path, labelSelector=STAGE_LABEL, fieldSelector=NOT_ENDED)["items"])


def read_node(api: Api, name: str) -> Object:
    return api.get(f"{NODES}/{name}")


def find_node(api: Api, name: str) -> Object | None:
    """None if there is none of that name."""
    try:
        return read_node(api, name)
    except Refused as no:
        if no.status != GONE:
            raise
        return None


def patch_node(api: Api, name: str, body: Object) -> Object:
    """A merge patch: lists are taken whole. Raises Refused (409) for a version that has passed."""
    return api.patch(f"{NODES}/{name}", body)


def patch_node_status(api: Api, name: str, body: Object) -> Object:
    """The same for the status; the subresource takes metadata too, but nothing of the spec."""
    return api.patch(f"{NODES}/{name}/status", body)


def evict(api: Api, pod: PodRef) -> None:
    """Ask for the pod's end with its own grace period; one that has ended is no error.

    The uid is a precondition: a later pod of the same name is none of ours. Raises Away while a
    disruption budget forbids it (429).
    """
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    }
    try:
        api.create(f"{namespace_of(PODS, pod.namespace, pod.name)}/eviction", body)
    except Refused as no:
        if no.status not in (GONE, CONFLICT):
            raise


def tell(api: Api, node: Object, event: Tell, now: int, component: str) -> None:
    """An Event that `kubectl describe node` shows."""
    meta, at = node["metadata"], rfc3339(now)
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}.", "namespace": "default"},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Node", "name": meta["name"], "uid": meta["uid"],
        },
        "type": event.kind,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": component},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }  # fmt: skip
    api.create(EVENTS, body)


@contextmanager
def errors_typed(doing: str) -> Iterator[None]:
    """The server's no, or its silence, as an error of one line that says what was being done."""
    try:
        yield
    except Away as away:
        raise InfraError(
            f"{doing}: Kubernetes does not answer: {away}",
            "is it up? `kubectl version` asks it too",
        ) from away
    except Refused as no:
        line = f"{doing}: {no.message} ({no.status})"
        if no.status in NO_RIGHTS:
            raise UserError(line, "ask for the rights of k8s/, or use another kubeconfig") from no
        if no.status == GONE:
            raise UserError(line, "`headrace nodes` lists those there are") from no
        raise InfraError(line, "try again") from no
