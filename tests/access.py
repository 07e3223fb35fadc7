"""Access control and network policies as a cluster reads them, small enough to be read by people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from tests.manifests import Object, of_kind, place_of

ACCOUNTS = {
    "stage": ("headrace", "stage"),
    "server": ("headrace-system", "server"),
    "launcher": ("headrace-system", "launcher"),
    "node-controller": ("headrace-system", "node-controller"),
    "node-agent": ("headrace-nodes", "node-agent"),
}
OPERATOR = ("headrace-system", "an-operator")
"""Somebody with the roles that people get by hand."""
EVERYWHERE = ""
"""As a namespace: of the whole cluster."""
Right = tuple[str, str, str]
"""Namespace, resource with its group ("jobs.batch", "pods/eviction"), verb."""

RIGHTS: dict[str, dict[tuple[str, str], str]] = {
    "stage": {},
    "server": {},
    "launcher": {
        ("headrace", "jobs.batch"): "create get list watch patch delete",
        ("headrace", "services"): "create",
        ("headrace", "pods"): "list watch",
        ("headrace", "events"): "list",
        ("headrace", "workloads.kueue.x-k8s.io"): "list watch patch",
        ("headrace", "localqueues.kueue.x-k8s.io"): "list",
        (EVERYWHERE, "workloadpriorityclasses.kueue.x-k8s.io"): "list",
        (EVERYWHERE, "nodes"): "list",
    },
    "node-controller": {
        (EVERYWHERE, "nodes"): "get list watch patch",
        ("headrace", "pods"): "get list watch",
        ("headrace", "pods/eviction"): "create",
        ("default", "events"): "create",
    },
    "node-agent": {
        (EVERYWHERE, "nodes"): "get",
        (EVERYWHERE, "nodes/status"): "patch",
    },
    "node-operator": {
        (EVERYWHERE, "nodes"): "get list patch report",
        ("headrace", "pods"): "list",
    },
}
"""All that each account may do. What is not here, it may not."""


def bindings_of_an_operator() -> list[Object]:
    """As the commands in docs/cluster.md make them."""
    kinds = {
        "ClusterRole": {"name": "an-operator"},
        "Role": {"name": "an-operator", "namespace": "headrace"},
    }
    names = {"ClusterRole": "headrace-node-operator", "Role": "node-operator"}
    subject = {"kind": "ServiceAccount", "namespace": OPERATOR[0], "name": OPERATOR[1]}
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": kind, "name": names[kind]},
            "subjects": [subject],
        }
        for kind, meta in kinds.items()
    ]


def wanted(account: str) -> set[Right]:
    return {
        (namespace, resource, verb)
        for (namespace, resource), verbs in RIGHTS[account].items()
        for verb in verbs.split()
    }


def granted(objects: Sequence[Object], account: tuple[str, str]) -> set[Right]:
    """What the bindings among `objects` give to the account (namespace, name)."""
    rules = {
        (one["kind"], *place_of(one)): one["rules"]
        for one in of_kind(objects, "Role", "ClusterRole")
    }
    found = set()
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        subjects = {
            (one.get("namespace", ""), one["name"])
            for one in binding["subjects"]
            if one["kind"] == "ServiceAccount"
        }
        if account not in subjects:
            continue
        namespace, role = place_of(binding)[0], binding["roleRef"]
        home = namespace if role["kind"] == "Role" else ""
        for rule in rules[role["kind"], home, role["name"]]:
            assert set(rule) == {"apiGroups", "resources", "verbs"}
            found |= {
                (namespace, f"{resource}.{group}" if group else resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


@dataclass(frozen=True)
class Peer:
    """One end of a connection; without a namespace, something outside the cluster's pods."""

    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""


def allowed(
    objects: Sequence[Object], source: Peer, target: Peer, protocol: str, port: int
) -> bool:
    """Whether the policies let `source` open a connection: its namespace out, and the target's in."""
    policies = of_kind(objects, "NetworkPolicy")
    return _direction(policies, "Egress", source, target, protocol, port) and _direction(
        policies, "Ingress", target, source, protocol, port
    )


def _direction(
    policies: Sequence[Object], direction: str, subject: Peer, other: Peer, protocol: str, port: int
) -> bool:
    about = [
        one["spec"]
        for one in policies
        if place_of(one)[0] == subject.namespace
        and direction in one["spec"]["policyTypes"]
        and _selects(one["spec"]["podSelector"], dict(subject.labels))
    ]
    if not about:  # what no policy selects is free
        return True
    key, ends = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _any_port(rule, protocol, port) and _any_peer(rule.get(ends), subject.namespace, other)
        for spec in about
        for rule in spec.get(key, [])
    )


def _any_port(rule: Mapping[str, object], protocol: str, port: int) -> bool:
    ports = rule.get("ports")
    assert ports is None or isinstance(ports, list)
    return not ports or any((one["protocol"], one["port"]) == (protocol, port) for one in ports)


def _any_peer(peers: list[Object] | None, home: str, other: Peer) -> bool:
    if peers is None:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            if other.address and _reaches(peer["ipBlock"], other.address):
                return True
            continue
        namespaces = peer.get("namespaceSelector")
        is_there = (
            other.namespace == home
            if namespaces is None
            else _selects(namespaces, {"kubernetes.io/metadata.name": other.namespace})
        )
        if (
            other.namespace
            and is_there
            and _selects(peer.get("podSelector", {}), dict(other.labels))
        ):
            return True
    return False


def _reaches(block: Object, address: str) -> bool:
    one = ip_address(address)
    is_excepted = any(one in ip_network(net) for net in block.get("except", []))
    return one in ip_network(block["cidr"]) and not is_excepted


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    return all(_holds(one, labels) for one in _requirements(selector))


def _requirements(selector: Object) -> Iterator[Object]:
    yield from selector.get("matchExpressions", [])
    for key, value in selector.get("matchLabels", {}).items():
        yield {"key": key, "operator": "In", "values": [value]}


def _holds(requirement: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement["key"])
    if requirement["operator"] == "Exists":
        return value is not None
    assert requirement["operator"] == "In"
    return value in requirement["values"]
