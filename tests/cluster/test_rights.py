"""Who may do what, asked of a real API server: all that is allowed, and that nothing else is."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from kubernetes import client, config

from tests.access import (
    ACCOUNTS,
    EVERYWHERE,
    OPERATOR,
    Right,
    bindings_of_an_operator,
    wanted,
)
from tests.cluster.overlay import answer, apply_dev, call, created

NAMESPACES = ("headrace", "headrace-system", "headrace-nodes", "default", "kube-system")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
EVERYBODYS = {
    "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
    "selfsubjectreviews.authentication.k8s.io",
}
"""What Kubernetes lets anybody create who has a name: questions about oneself."""


@pytest.fixture(scope="module", autouse=True)
def _applied() -> Iterator[None]:
    apply_dev()
    with created(*bindings_of_an_operator()):
        yield


def resources() -> list[tuple[str, str, str, bool]]:
    """Group, resource, subresource of all that the server has, and whether it is in namespaces."""
    groups = [("", "/api/v1")]
    for group in call("GET", "/apis")["groups"]:
        groups += [(group["name"], f"/apis/{one['groupVersion']}") for one in group["versions"]]
    found = set()
    for group, path in groups:
        for one in call("GET", path)["resources"]:
            resource, _, subresource = one["name"].partition("/")
            found.add((group, resource, subresource, one["namespaced"]))
    return sorted(found)


def questions() -> list[tuple[str, str, str, str, str]]:
    """Namespace, group, resource, subresource and verb: everything that could be asked for."""
    return [
        (namespace, group, resource, subresource, verb)
        for group, resource, subresource, is_namespaced in resources()
        for namespace in (NAMESPACES if is_namespaced else (EVERYWHERE,))
        for verb in VERBS
    ]


def is_allowed(api: client.AuthorizationV1Api, user: str, question: tuple[str, ...]) -> bool:
    namespace, group, resource, subresource, verb = question
    attributes = client.V1ResourceAttributes(
        namespace=namespace, group=group, resource=resource, subresource=subresource, verb=verb
    )
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}"]
    review = client.V1SubjectAccessReview(
        spec=client.V1SubjectAccessReviewSpec(
            user=user, groups=[*groups, "system:authenticated"], resource_attributes=attributes
        )
    )
    return bool(api.create_subject_access_review(review).status.allowed)


@pytest.mark.parametrize("account", [*ACCOUNTS, "node-operator"])
def test_of_all_that_can_be_asked_an_account_may_do_this_and_nothing_else(account: str) -> None:
    asked = questions()
    assert len(asked) > 2000
    config.load_kube_config(os.environ["KUBECONFIG"])
    api = client.AuthorizationV1Api()
    user = f"system:serviceaccount:{':'.join(ACCOUNTS.get(account, OPERATOR))}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(partial(is_allowed, api, user), asked))
    granted: set[Right] = set()
    for (namespace, group, resource, subresource, verb), yes in zip(asked, answers, strict=True):
        name = f"{resource}/{subresource}" if subresource else resource
        full = f"{name}.{group}" if group else name
        if yes and full not in EVERYBODYS:
            granted.add((namespace, full, verb))
    assert granted == {right for right in wanted(account) if right[2] in VERBS}


@pytest.mark.parametrize(
    ("verb", "what", "namespace", "expected"),
    [
        ("patch", "nodes", "headrace", "yes"),
        ("report", "nodes", "headrace", "yes"),
        ("update", "nodes", "headrace", "no"),
        ("patch", "nodes/status", "headrace", "no"),
        ("list", "pods", "headrace", "yes"),
        ("list", "pods", "default", "no"),
    ],
)
def test_who_operates_nodes_may_report_on_them(
    verb: str, what: str, namespace: str, expected: str
) -> None:
    resource, _, subresource = what.partition("/")
    asked = ["auth", "can-i", verb, resource, "-n", namespace, f"--subresource={subresource}"]
    assert answer(*asked, f"--as=system:serviceaccount:{':'.join(OPERATOR)}") == expected
