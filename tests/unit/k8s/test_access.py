"""Who may do what, and who may talk to whom, read from the manifests alone."""

import pytest

from tests.access import (
    ACCOUNTS,
    OPERATOR,
    Peer,
    allowed,
    bindings_of_an_operator,
    granted,
    wanted,
)
from tests.manifests import containers_of, name_of, objects_of, place_of, pod_of, workloads


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_has_its_rights_and_no_others(account: str) -> None:
    assert granted(objects_of("gpu"), ACCOUNTS[account]) == wanted(account)


def test_who_operates_nodes_has_the_rights_of_headrace_nodes_and_no_others() -> None:
    objects = [*objects_of("gpu"), *bindings_of_an_operator()]
    assert granted(objects, OPERATOR) == wanted("node-operator")


def test_no_account_of_ours_is_left_out() -> None:
    objects = objects_of("gpu")
    used = {(place_of(one)[0], pod_of(one)["serviceAccountName"]) for one in workloads(objects)}
    assert used | {("headrace", "stage")} == set(ACCOUNTS.values())
    subjects = {
        (one["namespace"], one["name"])
        for binding in objects
        if binding["kind"].endswith("RoleBinding") or binding["kind"] == "ClusterRoleBinding"
        for one in binding["subjects"]
    }
    assert subjects <= set(ACCOUNTS.values())


def stage(name: str) -> Peer:
    return Peer("headrace", (("headrace.dev/stage", name),))


def of_system(name: str) -> Peer:
    return Peer("headrace-system", (("app.kubernetes.io/name", name),))


AGENT = Peer("headrace-nodes", (("app.kubernetes.io/name", "node-agent"),))
NAMES = Peer("kube-system", (("k8s-app", "kube-dns"),))
STRANGER = Peer("default", (("app.kubernetes.io/name", "flows"), ("headrace.dev/stage", "sft")))
UNLABELLED = Peer("headrace")
API_SERVER = Peer(address="10.96.0.1")
METADATA = Peer(address="169.254.169.254")  # a cloud's, that hands out the node's keys
OUTSIDE = Peer(address="93.184.215.14")
DATABASE_ELSEWHERE = Peer(address="10.1.2.3")
PEOPLE = {
    "a stage": stage("pretrain"),
    "ingest": stage("ingest"),
    "a pod without labels": UNLABELLED,
    "a pod of another namespace": STRANGER,
    "flows": of_system("flows"),
    "node-controller": of_system("node-controller"),
    "prefect": of_system("prefect"),
    "mlflow": of_system("mlflow"),
    "postgres": of_system("postgres"),
    "node-agent": AGENT,
}
PLACES = {
    "another rank": (stage("pretrain"), 29500),
    "names": (NAMES, 53),
    "the agent": (AGENT, 9464),
    "the node's port of the agent": (Peer(address="10.0.0.7"), 9464),
    "the API server": (API_SERVER, 443),
    "the cloud's metadata": (METADATA, 80),
    "the metadata by https": (METADATA, 443),
    "a source": (OUTSIDE, 443),
    "a source in the clear": (OUTSIDE, 80),
    "prefect": (of_system("prefect"), 4200),
    "mlflow": (of_system("mlflow"), 5000),
    "postgres": (of_system("postgres"), 5432),
}
MAY = {
    "a stage": {"another rank", "names", "the agent", "the node's port of the agent"},
    "ingest": {"another rank", "names", "the agent", "the node's port of the agent", "a source"},
    "a pod without labels": {"names"},
    # No policy of ours holds it back, and none lets it in, but the agent's.
    "a pod of another namespace": {
        "names", "the agent", "the node's port of the agent", "the API server", "a source",
        "a source in the clear", "the cloud's metadata", "the metadata by https",
    },
    "flows": {"names", "the API server", "a source", "the metadata by https", "prefect", "mlflow"},
    "node-controller": {"names", "the API server", "a source", "the metadata by https"},
    "prefect": {"names", "postgres"},
    "mlflow": {"names", "postgres"},
    "postgres": {"names"},
    "node-agent": {"names", "the API server", "a source", "the metadata by https"},
}  # fmt: skip


@pytest.mark.parametrize("who", PEOPLE)
def test_a_pod_may_open_these_connections_and_no_others(who: str) -> None:
    objects = objects_of("gpu")
    reached = {
        place
        for place, (peer, port) in PLACES.items()
        if allowed(objects, PEOPLE[who], peer, "UDP" if port == 53 else "TCP", port)
    }
    assert reached == MAY[who]


def test_a_managed_database_is_reached_by_the_two_servers_alone() -> None:
    objects = objects_of("gpu", ("managed-postgres",))
    by = {
        who
        for who, peer in PEOPLE.items()
        if allowed(objects, peer, DATABASE_ELSEWHERE, "TCP", 5432)
    }
    assert by == {"prefect", "mlflow", "a pod of another namespace"}


def test_the_ports_of_the_policies_are_those_of_the_programs() -> None:
    objects = objects_of("gpu")
    open_ports = {
        name_of(one): port["containerPort"]
        for one in workloads(objects)
        for container in containers_of(pod_of(one))
        for port in container.get("ports", [])
    }
    agents = {"node-agent": 9464, "node-agent-cpu": 9464}
    assert open_ports == {"prefect": 4200, "mlflow": 5000, "postgres": 5432} | agents
