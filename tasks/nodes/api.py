"""The calls to the API server that the agent, the controller and the command make, as plain JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from components.errors import InfraError, StageError, UserError
from tasks.nodes.effects import Tell
from tasks.nodes.names import STAGE_LABEL
from tasks.nodes.observed import PodRef

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

Json = dict[str, Any]

TIMEOUT_S = (10, 30)
"""To connect, and between two bytes."""


def connect() -> "CoreV1Api":
    """As kubectl does: KUBECONFIG, the file in the home folder, or the pod's service account."""
    from kubernetes import client, config

    try:
        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
    except (config.ConfigException, OSError) as error:
        raise UserError(
            f"no cluster is configured: {' '.join(str(error).split())}",
            "set KUBECONFIG to a kubeconfig file",
        ) from error
    return client.CoreV1Api()


@contextmanager
def errors_typed(doing: str) -> Iterator[None]:
    """What the API server refuses, or that it is away, as one line that says what was being done."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _typed(error, doing) from error
    except (HTTPError, OSError) as error:
        raise InfraError(
            f"{doing}: the API server cannot be reached: {type(error).__name__}",
            "is the cluster up, and does KUBECONFIG name it?",
        ) from error


def _typed(error: Any, doing: str) -> StageError:
    line = f"{doing}: {said(error)}"
    match error.status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return UserError(line, "ask for the rights of k8s/, or use another kubeconfig")
        case HTTPStatus.NOT_FOUND:
            return UserError(line, "`headrace nodes` lists those there are")
        case _:
            return InfraError(line, "try again")


def said(error: Any) -> str:
    """An ApiException on one line: the server's own message, if it gives one, and the status."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return f"{' '.join(str(message).split())} ({error.status})"


def read_node(api: "CoreV1Api", name: str) -> Json:
    return _json(api.read_node(name, _preload_content=False, _request_timeout=TIMEOUT_S))


def find_node(api: "CoreV1Api", name: str) -> Json | None:
    """None if there is none of that name."""
    from kubernetes.client import ApiException

    try:
        return read_node(api, name)
    except ApiException as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def list_nodes(api: "CoreV1Api", selector: str) -> list[Json]:
    answer = api.list_node(
        label_selector=selector, _preload_content=False, _request_timeout=TIMEOUT_S
    )
    items: list[Json] = _json(answer)["items"]
    return items


def list_stage_pods(api: "CoreV1Api") -> list[Json]:
    answer = api.list_pod_for_all_namespaces(
        label_selector=STAGE_LABEL, _preload_content=False, _request_timeout=TIMEOUT_S
    )
    items: list[Json] = _json(answer)["items"]
    return items


def patch_node(api: "CoreV1Api", name: str, body: Json) -> Json:
    """A strategic merge patch. Raises ConflictException if it names a version that has passed."""
    return _json(api.patch_node(name, body, _preload_content=False, _request_timeout=TIMEOUT_S))


def patch_node_status(api: "CoreV1Api", name: str, body: Json) -> Json:
    """The same, for conditions; the subresource takes annotations too, but nothing of the spec."""
    return _json(
        api.patch_node_status(name, body, _preload_content=False, _request_timeout=TIMEOUT_S)
    )


def evict(api: "CoreV1Api", pod: PodRef) -> bool:
    """Whether the pod has begun to end, or is gone; False while a disruption budget forbids it.

    The uid is a precondition: another pod of the same name is none of ours.
    """
    from kubernetes import client

    body = client.V1Eviction(
        metadata=client.V1ObjectMeta(name=pod.name, namespace=pod.namespace),
        delete_options=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=pod.uid)),
    )
    try:
        api.create_namespaced_pod_eviction(
            pod.name, pod.namespace, body, _preload_content=False, _request_timeout=TIMEOUT_S
        )
    except client.ApiException as error:
        if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
            return True
        if error.status == HTTPStatus.TOO_MANY_REQUESTS:
            return False
        raise
    return True


def tell(api: "CoreV1Api", node: Json, event: Tell, now: int, component: str) -> None:
    """An Event that `kubectl describe node` shows; a cluster's object has them in `default`."""
    from kubernetes import client

    meta = node["metadata"]
    at = datetime.fromtimestamp(now, UTC)
    body = client.CoreV1Event(
        metadata=client.V1ObjectMeta(generate_name=f"{meta['name']}.", namespace="default"),
        involved_object=client.V1ObjectReference(
            api_version="v1", kind="Node", name=meta["name"], uid=meta["uid"]
        ),
        type=event.kind,
        reason=event.reason,
        message=event.message[:1024],
        source=client.V1EventSource(component=component),
        first_timestamp=at,
        last_timestamp=at,
        count=1,
    )
    api.create_namespaced_event("default", body, _preload_content=False, _request_timeout=TIMEOUT_S)


def _json(answer: Any) -> Json:
    parsed: Json = json.loads(answer.data)
    return parsed
