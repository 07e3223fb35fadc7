"""The objects of an overlay fit together, and keep the promises of docs/cluster.md."""

import re
from collections import defaultdict

import pytest

from components.section import read_yaml
from tests.manifests import (
    OVERLAYS,
    ROOT,
    Object,
    agents,
    amount,
    containers_of,
    name_of,
    objects_of,
    of_kind,
    place_of,
    pod_of,
    quotas,
    workloads,
)

NAMESPACES = {"headrace", "headrace-system", "headrace-nodes"}
WITH_TOKEN = {"flows", "node-controller", "node-agent", "node-agent-cpu"}
"""The programs that ask the API server; nobody else gets a token."""

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@every_overlay
def test_every_object_is_in_a_namespace_of_ours_or_in_none(overlay: str) -> None:
    objects = objects_of(overlay)
    assert {name_of(one) for one in of_kind(objects, "Namespace")} == NAMESPACES
    named = {one["metadata"].get("namespace") for one in objects}
    # `default` has the events about nodes.
    assert named == NAMESPACES | {"default", None}
    places = [(one["kind"], *place_of(one)) for one in objects]
    assert len(places) == len(set(places))


@every_overlay
def test_the_queues_lead_to_nodes(overlay: str) -> None:
    objects = objects_of(overlay)
    flavors = {name_of(one): one["spec"] for one in of_kind(objects, "ResourceFlavor")}
    topologies = {name_of(one) for one in of_kind(objects, "Topology")}
    queues = {name_of(one): one for one in of_kind(objects, "ClusterQueue")}
    local = of_kind(objects, "LocalQueue")
    assert {name_of(one) for one in local} == {"foundation", "applied", "data"}
    assert {place_of(one)[0] for one in local} == {"headrace"}
    assert {one["spec"]["clusterQueue"] for one in local} == set(queues)
    cohorts = {name_of(one) for one in of_kind(objects, "Cohort")}
    for queue in queues.values():
        assert {flavor for flavor, _, _ in quotas(queue)} <= set(flavors)
        assert queue["spec"]["cohortName"] in cohorts
        assert queue["spec"]["preemption"]["withinClusterQueue"] == "LowerPriority"
        # Kueue with fair sharing refuses it.
        assert "borrowWithinCohort" not in queue["spec"]["preemption"]
    for flavor in flavors.values():
        assert ("topologyName" in flavor) == ("nodeLabels" in flavor)
        assert flavor.get("topologyName", "gpu") in topologies
    (topology,) = of_kind(objects, "Topology")
    # With another lowest level Kueue looks at no taint.
    assert topology["spec"]["levels"][-1] == {"nodeLabel": "kubernetes.io/hostname"}


@every_overlay
def test_a_team_can_borrow_no_more_than_the_others_lend_and_lend_no_more_than_it_has(
    overlay: str,
) -> None:
    queues = of_kind(objects_of(overlay), "ClusterQueue")
    lent: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for queue in queues:
        for flavor, resource, quota in quotas(queue):
            own = amount(quota["nominalQuota"])
            lent[flavor, resource][name_of(queue)] = amount(quota.get("lendingLimit", own))
            assert amount(quota.get("lendingLimit", 0)) <= own
    borrowed = 0
    for queue in queues:
        for flavor, resource, quota in quotas(queue):
            if "borrowingLimit" in quota:
                borrowed += 1
                others = sum(
                    value
                    for name, value in lent[flavor, resource].items()
                    if name != name_of(queue)
                )
                assert 0 < amount(quota["borrowingLimit"]) <= others
    assert borrowed >= 6


def test_each_gpu_of_a_quota_comes_with_the_same_cores_and_memory() -> None:
    each = set()
    for queue in of_kind(objects_of("gpu"), "ClusterQueue"):
        of_flavor: defaultdict[str, dict[str, Object]] = defaultdict(dict)
        for flavor, resource, quota in quotas(queue):
            of_flavor[flavor][resource] = quota
        for has in of_flavor.values():
            if "nvidia.com/gpu" not in has:
                continue
            for limit in ("nominalQuota", "borrowingLimit", "lendingLimit"):
                gpus = has["nvidia.com/gpu"][limit]
                each.add(
                    tuple(
                        amount(has[resource][limit]) / gpus
                        for resource in ("cpu", "memory", "ephemeral-storage")
                    )
                )
    assert each == {(22, 220 * 2**30, 440 * 2**30)}


@every_overlay
def test_what_a_pod_names_is_there(overlay: str) -> None:
    objects = objects_of(overlay)
    accounts = {place_of(one) for one in of_kind(objects, "ServiceAccount")}
    claims = {place_of(one) for one in of_kind(objects, "PersistentVolumeClaim")}
    maps = {place_of(one) for one in of_kind(objects, "ConfigMap")}
    for workload in workloads(objects):
        namespace, pod = place_of(workload)[0], pod_of(workload)
        assert (namespace, pod["serviceAccountName"]) in accounts
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert (namespace, volume["persistentVolumeClaim"]["claimName"]) in claims
            if "configMap" in volume:
                assert (namespace, volume["configMap"]["name"]) in maps
        made = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])}
        for container in containers_of(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes) | made


def secret_keys(objects: list[Object]) -> set[tuple[str, str, str]]:
    """Namespace, Secret and key of each that a container reads."""
    return {
        (place_of(workload)[0], secret["name"], secret["key"])
        for workload in workloads(objects)
        for container in containers_of(pod_of(workload))
        for variable in container.get("env", [])
        for secret in [variable.get("valueFrom", {}).get("secretKeyRef")]
        if secret
    }


@pytest.mark.parametrize("overlay", ["kind", "gpu"])
def test_the_passwords_asked_for_are_those_of_the_example(overlay: str) -> None:
    objects = objects_of(overlay)
    (secret,) = of_kind(objects, "Secret")
    given = {(*place_of(secret), key) for key in secret["data"]}
    assert secret_keys(objects) == given
    assert len(given) == 4


@every_overlay
def test_a_service_leads_to_a_port_of_one_workload(overlay: str) -> None:
    objects = objects_of(overlay)
    services = of_kind(objects, "Service")
    assert {name_of(one) for one in services} == {"postgres", "prefect", "mlflow"}
    for service in services:
        (workload,) = [
            one
            for one in workloads(objects)
            if place_of(one)[0] == place_of(service)[0]
            and service["spec"]["selector"].items()
            <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        open_ports = {
            port["name"]: port["containerPort"]
            for container in containers_of(pod_of(workload))
            for port in container.get("ports", [])
        }
        for port in service["spec"]["ports"]:
            assert open_ports[port["targetPort"]] == port["port"]


@every_overlay
def test_a_budget_and_a_policy_select_something_that_runs(overlay: str) -> None:
    objects = objects_of(overlay)
    running = {(place_of(one)[0], name_of(one)) for one in workloads(objects)}
    for budget in of_kind(objects, "PodDisruptionBudget"):
        name = budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        assert (place_of(budget)[0], name) in running
    policies = {name_of(one) for one in of_kind(objects, "ValidatingAdmissionPolicy")}
    bound = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    assert {one["spec"]["policyName"] for one in bound} == policies
    assert {tuple(one["spec"]["validationActions"]) for one in bound} == {("Deny",)}


@every_overlay
def test_both_claims_of_the_shared_volume_lead_to_one_storage(overlay: str) -> None:
    objects = objects_of(overlay)
    volumes = {name_of(one): one["spec"] for one in of_kind(objects, "PersistentVolume")}
    claims = of_kind(objects, "PersistentVolumeClaim")
    assert {place_of(one) for one in claims} == {
        ("headrace", "headrace"), ("headrace-system", "headrace"),
    }  # fmt: skip
    for claim in claims:
        volume = volumes[claim["spec"]["volumeName"]]
        assert (volume["claimRef"]["namespace"], volume["claimRef"]["name"]) == place_of(claim)
        assert volume["accessModes"] == claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert volume["storageClassName"] == claim["spec"]["storageClassName"] == ""
        assert volume["persistentVolumeReclaimPolicy"] == "Retain"
    one, other = ({**spec, "claimRef": None} for spec in volumes.values())
    assert one == other


@every_overlay
def test_every_container_is_restricted(overlay: str) -> None:
    """Pod Security's level restricted, and what it leaves open; the agent has one exception more."""
    for workload in workloads(objects_of(overlay)):
        pod, is_agent = pod_of(workload), workload in agents([workload])
        assert pod["automountServiceAccountToken"] == (name_of(workload) in WITH_TOKEN)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert is_agent != (pod["securityContext"].get("runAsNonRoot") is True)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in containers_of(pod):
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["capabilities"]["drop"] == ["ALL"]
            assert rights["capabilities"].get("add", []) == (["SYSLOG"] if is_agent else [])
            assert not rights.get("privileged")
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@pytest.mark.parametrize("overlay", ["kind", "gpu"])
@pytest.mark.parametrize("labels", [{}, {"headrace.dev/gpu-pool": "h100"}])
def test_one_agent_runs_on_each_node_with_a_gpu_or_without(
    overlay: str, labels: dict[str, str]
) -> None:
    """A node without one would stay in repair for ever, and have its dear checks in every pod."""
    there = [one for one in agents(objects_of(overlay)) if _goes_to(pod_of(one), labels)]
    assert len(there) == 1
    assert pod_of(there[0])["tolerations"] == [{"operator": "Exists"}]
    if overlay == "gpu":  # NVIDIA's runtime is where its GPUs are
        assert (pod_of(there[0]).get("runtimeClassName") == "nvidia") == bool(labels)


def _goes_to(pod: Object, labels: dict[str, str]) -> bool:
    assert "nodeSelector" not in pod
    if "affinity" not in pod:
        return True
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    ((one,),) = (term["matchExpressions"] for term in required["nodeSelectorTerms"])
    return (one["key"] in labels) == {"Exists": True, "DoesNotExist": False}[one["operator"]]


@every_overlay
def test_the_ranks_of_a_check_on_all_gpus_have_memory_to_meet_in(overlay: str) -> None:
    for agent in agents(objects_of(overlay)):
        (container,), volumes = pod_of(agent)["containers"], pod_of(agent)["volumes"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        (shm,) = (one["emptyDir"] for one in volumes if one["name"] == "shm")
        assert shm["medium"] == "Memory"


@every_overlay
def test_every_image_has_a_tag_that_does_not_move(overlay: str) -> None:
    objects = objects_of(overlay)
    images = {
        one["image"] for workload in workloads(objects) for one in containers_of(pod_of(workload))
    }
    images |= {
        variable["value"]
        for workload in workloads(objects)
        for container in containers_of(pod_of(workload))
        for variable in container.get("env", [])
        if variable["name"] == "HEADRACE_IMAGE"
    }
    assert len(images) >= (1 if overlay == "dev" else 3)
    assert [image for image in images if not re.fullmatch(r"[\w./-]+:[\w.-]+", image)] == []
    assert [image for image in images if image.endswith(":latest")] == []


def test_a_namespace_of_stages_or_of_the_system_enforces_restricted_pods() -> None:
    levels = {
        name_of(one): one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for one in of_kind(objects_of("gpu"), "Namespace")
    }
    assert levels == {
        "headrace": "restricted", "headrace-system": "restricted", "headrace-nodes": "privileged",
    }  # fmt: skip


def test_a_managed_database_takes_the_place_of_the_pod() -> None:
    objects = objects_of("gpu", ("managed-postgres",))
    assert "StatefulSet" not in {one["kind"] for one in objects}
    (service,) = (one for one in of_kind(objects, "Service") if name_of(one) == "postgres")
    assert service["spec"] == {"type": "ExternalName", "externalName": "postgres.example.com"}
    addresses = {
        variable["value"]
        for workload in workloads(objects)
        for container in containers_of(pod_of(workload))
        for variable in container.get("env", [])
        if "postgresql" in variable.get("value", "")
    }
    assert addresses == {
        "postgresql+asyncpg://prefect:$(DATABASE_PASSWORD)@postgres:5432/prefect?ssl=require",
        "postgresql+psycopg2://mlflow:$(DATABASE_PASSWORD)@postgres:5432/mlflow?sslmode=require",
    }


def test_no_password_is_in_git() -> None:
    ignored = (ROOT / "k8s" / "overlays" / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "secrets.env" in ignored
    for overlay in ("kind", "gpu"):
        (secret,) = of_kind(objects_of(overlay), "Secret")
        assert set(secret["data"].values()) == {"Y2hhbmdlLW1l"}  # change-me, the example's


def test_kind_makes_the_nodes_that_its_queues_ask_for() -> None:
    cluster = read_yaml(ROOT / "k8s" / "overlays" / "kind" / "cluster.yaml")
    (flavor,) = (
        one for one in of_kind(objects_of("kind"), "ResourceFlavor") if name_of(one) == "h100"
    )
    (topology,) = of_kind(objects_of("kind"), "Topology")
    levels = [level["nodeLabel"] for level in topology["spec"]["levels"]]
    (volume, _) = of_kind(objects_of("kind"), "PersistentVolume")
    workers = [node for node in cluster["nodes"] if node["role"] == "worker"]
    assert len(workers) == 2
    for node in workers:
        assert flavor["spec"]["nodeLabels"].items() <= node["labels"].items()
        assert set(levels) - {"kubernetes.io/hostname"} <= set(node["labels"])
    for node in cluster["nodes"]:
        (mount,) = node["extraMounts"]
        assert mount["containerPath"] == volume["spec"]["hostPath"]["path"]
