"""Kueue and KWOK: their own objects, from their modules, fitted to processes that run outside the cluster."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from k8s.devcluster.build import module_folder, program
from k8s.devcluster.identities import PKI
from k8s.devcluster.settings import HERE, NODE_IP, RUN, kubeconfig

SYSTEM_NAMESPACE = "kueue-system"
METRICS_CERTIFICATES = Path("/etc/kueue/metrics/certs")
"""A fixed path in Kueue, asked for even where its metrics are off."""
HEALTH = "127.0.0.1:8081"
RIGHTS_GROUP = "rbac.authorization.k8s.io"
RIGHTS = f"{RIGHTS_GROUP}/v1"
Object = dict[str, Any]

CONFIG = {
    "apiVersion": "config.kueue.x-k8s.io/v1beta2",
    "kind": "Configuration",
    "namespace": SYSTEM_NAMESPACE,
    "health": {"healthProbeBindAddress": HEALTH},
    "metrics": {"bindAddress": "0"},
    "webhook": {"port": 9443, "certDir": str(PKI)},
    "leaderElection": {"leaderElect": False},
    "internalCertManagement": {"enable": False},
    "clientConnection": {"qps": 200, "burst": 400},
    "integrations": {"frameworks": ["batch/job"]},
    "controller": {"groupKindConcurrency": {"Job.batch": 5, "Workload.kueue.x-k8s.io": 5}},
    "fairSharing": {
        "preemptionStrategies": ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]
    },
}


def write() -> None:
    (RUN / "kueue.yaml").write_text(yaml.safe_dump(CONFIG))


def command() -> list[str]:
    return [
        program("kueue"), f"--config={RUN / 'kueue.yaml'}", f"--kubeconfig={kubeconfig('kueue')}",
        "--feature-gates=VisibilityOnDemand=false", "--zap-log-level=2",
    ]  # fmt: skip


def kwok_command() -> list[str]:
    stages = module_folder("sigs.k8s.io/kwok") / "kustomize" / "stage"
    files = [
        stages / "node/fast/node-initialize.yaml",
        stages / "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
        stages / "pod/fast/pod-ready.yaml",
        HERE / "kwok-pod-complete.yaml",
        stages / "pod/fast/pod-delete.yaml",
    ]
    return [
        program("kwok"), *[f"--config={path}" for path in files],
        f"--kubeconfig={kubeconfig('kwok')}",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--server-address=127.0.0.1:10247",
    ]  # fmt: skip


def definitions() -> list[Object]:
    """Kueue's custom resources; versions are converted by the process on this machine."""
    found = []
    for one in _documents("crd/bases/*.yaml"):
        if len(one["spec"]["versions"]) > 1:
            webhook = {"clientConfig": _address("/convert"), "conversionReviewVersions": ["v1"]}
            one["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        found.append(one)
    return found


def objects() -> list[Object]:
    """Its namespace, its rights and its webhooks."""
    namespace = {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE},
    }  # fmt: skip
    return [namespace, *map(_webhooks, _documents("webhook/manifests.yaml")), *_rights()]


def _webhooks(configuration: Object) -> Object:
    """Those for Kueue's own objects and for Jobs: any other would refuse, for nobody serves it."""
    configuration["metadata"]["name"] = f"kueue-{configuration['metadata']['name']}"
    kept = []
    for webhook in configuration["webhooks"]:
        groups = {group for rule in webhook["rules"] for group in rule["apiGroups"]}
        is_for_jobs = any("jobs" in rule["resources"] for rule in webhook["rules"])
        if groups != {"kueue.x-k8s.io"} and not (is_for_jobs and groups == {"batch"}):
            continue
        webhook["clientConfig"] = _address(webhook["clientConfig"]["service"]["path"])
        if is_for_jobs:
            system = {
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": ["kube-system", SYSTEM_NAMESPACE],
            }
            webhook["namespaceSelector"] = {"matchExpressions": [system]}
        kept.append(webhook)
    configuration["webhooks"] = kept
    return configuration


def _rights() -> Iterator[Object]:
    user = {"kind": "User", "name": "kueue"}
    for role in _documents("rbac/role.yaml"):
        if role["kind"] != "ClusterRole":
            continue
        name = f"kueue-{role['metadata']['name']}"
        role["metadata"] = {"name": name}
        yield role
        yield {
            "apiVersion": RIGHTS, "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": RIGHTS_GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [user],
        }  # fmt: skip
    # Without it Kueue says it is ready, and ends two minutes later.
    metadata = {"name": "kueue-secrets", "namespace": SYSTEM_NAMESPACE}
    verbs = ["get", "list", "watch", "update"]
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}]
    yield {"apiVersion": RIGHTS, "kind": "Role", "metadata": metadata, "rules": rules}
    role_of = {"apiGroup": RIGHTS_GROUP, "kind": "Role", "name": metadata["name"]}
    yield {
        "apiVersion": RIGHTS, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": role_of, "subjects": [user],
    }  # fmt: skip


def _documents(pattern: str) -> Iterator[Object]:
    folder = module_folder("sigs.k8s.io/kueue") / "config" / "components"
    for path in sorted(folder.glob(pattern)):
        with path.open(encoding="utf-8") as file:
            yield from (one for one in yaml.load_all(file, yaml.CSafeLoader) if one)


def _address(path: str) -> Object:
    authority = base64.b64encode((PKI / "ca.crt").read_bytes()).decode()
    return {"url": f"https://{NODE_IP}:9443{path}", "caBundle": authority}
