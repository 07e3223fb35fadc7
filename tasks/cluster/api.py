"""The API server as paths and plain dicts, over the kubernetes client's transport and credentials.

Dicts, not the client's models: what is decided from them is decided by pure functions, which tests
feed with what a real server once said.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError
from yaml import YAMLError

from components.errors import InfraError, StageError, UserError

Object = dict[str, Any]
Answer = TypeVar("Answer")
JOBS = "/apis/batch/v1/namespaces/{namespace}/jobs"
PODS = "/api/v1/namespaces/{namespace}/pods"
SERVICES = "/api/v1/namespaces/{namespace}/services"
EVENTS = "/api/v1/namespaces/{namespace}/events"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/workloads"
LOCAL_QUEUES = "/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues"
PRIORITIES = "/apis/kueue.x-k8s.io/v1beta2/workloadpriorityclasses"
NODES = "/api/v1/nodes"
NOT_ADMITTED = "status.admission.clusterQueue="
"""A field selector for Workloads: those that wait, which are few where most have ended."""

USER_AGENT = "headrace"
"""What the server's audit log knows us by."""
TIMEOUT_S = (5.0, 30.0)
"""To connect, and between two pieces of an answer."""
WATCH_S = 60
"""A watch is asked for so long; the server's bookmarks keep it from being taken for dead."""
PAGE = 200
"""Objects in one answer: a pod of 18 KB is five times that as dicts, so a page of them 20 MB."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0)
"""Between tries; the last one over and over."""
ASK_IT = "is it up? `kubectl version` asks it too"
KUBECONFIG = Path("~/.kube/config")


class Refused(Exception):
    """The server's no: `status` is its HTTP code, `reason` its word for it (NotFound, Conflict, ...)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class Away(Exception):
    """The server, or a webhook that it asks, does not answer: later it may."""


class Api:
    def __init__(self, api_client: client.ApiClient) -> None:
        self._client = api_client

    def get(self, path: str, **query: str) -> Object:
        """Raises Refused or Away, as all of these do."""
        return self._json("GET", path, query)

    def pages(self, path: str, **query: str) -> Iterator[Object]:
        """A list in answers of PAGE objects at most, all of one version.

        Raises Refused (410) between two of them if that version is kept no longer.
        """
        query |= {"limit": str(PAGE), "continue": ""}
        while True:
            page = self.get(path, **query)
            yield page
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return

    def create(self, path: str, body: Object) -> Object:
        return self._json("POST", path, {}, body)

    def patch(self, path: str, body: Object) -> Object:
        """A JSON merge patch: given keys replace, None removes."""
        return self._json("PATCH", path, {}, body, "application/merge-patch+json")

    def delete(self, path: str, *, foreground: bool = False) -> None:
        """With all that it owns; one that is gone already is no error."""
        body = {"propagationPolicy": "Foreground" if foreground else "Background"}
        try:
            self._json("DELETE", path, {}, body)
        except Refused as no:
            if no.status != 404:
                raise

    def watch(self, path: str, **query: str) -> Iterator[Object]:
        """Events `{"type", "object"}` as they come, until the server ends it; ERROR events raise Refused."""
        query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S)}
        response = self._send("GET", path, query, None, "", (TIMEOUT_S[0], WATCH_S + 15.0))
        rest = b""
        try:
            for chunk in response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _refused(0, event["object"])
                    yield event
        except (HTTPError, OSError, ValueError) as error:
            raise Away(_reason(error)) from error
        finally:
            response.close()

    def _json(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:  # fmt: skip
        response = self._send(method, path, query, body, content_type, TIMEOUT_S)
        try:
            answer = json.loads(response.data)
        except (HTTPError, OSError, ValueError) as error:
            raise Away(_reason(error)) from error
        if not isinstance(answer, dict):
            raise Away("what answers is no Kubernetes")
        return answer

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None,
        content_type: str, timeout_s: tuple[float, float],
    ) -> Any:  # fmt: skip
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body else {})
        try:
            request = self._client.param_serialize(
                method, path, query_params=list(query.items()), header_params=headers,
                body=body, auth_settings=["BearerToken"],
            )  # fmt: skip
            response = self._client.call_api(*request, _request_timeout=timeout_s).response
            if response.status < 300:
                return response
            raise _refused(response.status, _parsed(response.data))
        except (ApiException, HTTPError, OSError) as error:
            raise Away(_reason(error)) from error


def connect() -> Api:
    """By KUBECONFIG or its default, else by the pod's own account. Raises UserError."""
    paths = os.environ.get("KUBECONFIG") or str(KUBECONFIG.expanduser())
    try:
        if "KUBECONFIG" in os.environ or Path(paths).exists():
            config.load_kube_config(config_file=paths)
        else:
            config.load_incluster_config()
    except (config.ConfigException, YAMLError, TypeError, OSError) as error:
        raise UserError(
            f"no access to Kubernetes: {_reason(error)}",
            "set KUBECONFIG, or HEADRACE_LAUNCHER=local to run stages on this machine",
        ) from error
    settings = client.Configuration.get_default_copy()
    settings.retries = False  # ours are told to whoever waits
    api_client = client.ApiClient(settings)
    api_client.user_agent = USER_AGENT
    return Api(api_client)


def namespace_of(path: str, namespace: str, name: str = "") -> str:
    """One of this module's paths with its blanks filled in."""
    filled = path.format(namespace=namespace)
    return f"{filled}/{name}" if name else filled


def patiently(
    ask: Callable[[], Answer], patience_s: float, say: Callable[[str], object],
    pause: Callable[[float], object] = time.sleep,
) -> Answer:  # fmt: skip
    """What `ask` gives, asked again while the server is away.

    Raises Refused, or InfraError after `patience_s`, or what `pause` raises to end the waiting.
    """
    deadline = time.monotonic() + patience_s
    said, tries = "", 0
    while True:
        try:
            return ask()
        except Away as away:
            if time.monotonic() > deadline:
                raise InfraError(f"Kubernetes does not answer: {away}", ASK_IT) from away
            if str(away) != said:
                said = str(away)
                say(f"Kubernetes does not answer, asking again: {said}")
        pause(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
        tries += 1


@contextmanager
def refusals_typed() -> Iterator[None]:
    """Raise the typed error for a no that nobody expected in the body, and for a server that is away."""
    try:
        yield
    except Refused as no:
        raise refusal(no) from no
    except Away as away:
        raise InfraError(f"Kubernetes does not answer: {away}", ASK_IT) from away


def refusal(no: Refused) -> StageError:
    """The typed error for a no that nobody expected."""
    if no.status in (400, 422):
        return UserError(
            f"Kubernetes refuses: {no.message}", "mend k8s/resources.yaml or k8s/job.yaml"
        )
    if no.status == 403 and "exceeded quota" not in no.message:
        return UserError(f"Kubernetes refuses: {no.message}", "see docs/cluster.md for the rights")
    if no.status == 404:
        return UserError(f"Kubernetes refuses: {no.message}", "see docs/cluster.md for the set-up")
    return InfraError(f"Kubernetes refuses: {no.message}", "try again; then see docs/cluster.md")


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return {"message": data.decode("utf-8", "replace")}


def _refused(code: int, said: Any) -> Refused | Away:
    """5xx and 429 are the server's own trouble, or a webhook's that is down; the rest is an answer.

    `code` is HTTP's, 0 within a watch; `said` a Status, or whatever else somebody in between says.
    """
    status = said if isinstance(said, dict) else {}
    code = code or int(status.get("code") or 0)
    reason = str(status.get("reason") or "")
    text = str(status.get("message") or reason).strip() or f"HTTP status {code}"
    message = text.splitlines()[0][:500]
    if code >= 500 or code == 429:
        return Away(message)
    return Refused(code, reason, message)


def _reason(error: Exception) -> str:
    """The innermost of what urllib3 wraps, on one line."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        return _reason(inner)
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
