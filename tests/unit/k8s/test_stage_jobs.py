"""What the launcher submits fits what the manifests prepare: queues, quotas, policies and the volume."""

from functools import cache
from pathlib import Path

import pytest

from components.contract import STAGES
from tasks.cluster.manifest import Attempt, Place, load_template, render
from tasks.config import Settings, load_resources
from tests.manifests import (
    ROOT,
    Object,
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

SETTINGS = Settings(launcher="kubernetes")


@cache
def job_of(stage: str) -> Object:
    """The Job as the flow server would submit it."""
    place = Place(
        SETTINGS.namespace, "image:tag", SETTINGS.claim, SETTINGS.volume,
        SETTINGS.volume / "project", 1000, 1000, is_dev=False,
        project="abcdef01",
    )  # fmt: skip
    attempt = Attempt(stage, "0123456789ab", 1, place.root / "runs" / stage / "0123456789ab", "")
    return render(load_template(ROOT), attempt, load_resources(ROOT).of(stage), place)[0]


def requests(stage: str) -> dict[str, float]:
    """Of one pod, which is the most that its containers ask for, for they run one after the other."""
    found: dict[str, float] = {}
    for container in containers_of(job_of(stage)["spec"]["template"]["spec"]):
        for name, quantity in container["resources"]["requests"].items():
            found[name] = max(found.get(name, 0.0), amount(quantity))
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_queue_and_priority_are_there_and_its_quota_holds_all_it_asks_for(
    stage: str,
) -> None:
    objects, labels = objects_of("gpu"), job_of(stage)["metadata"]["labels"]
    queue = labels["kueue.x-k8s.io/queue-name"]
    classes = {name_of(one) for one in of_kind(objects, "WorkloadPriorityClass")}
    assert labels["kueue.x-k8s.io/priority-class"] in classes
    (local,) = (one for one in of_kind(objects, "LocalQueue") if name_of(one) == queue)
    assert place_of(local)[0] == job_of(stage)["metadata"]["namespace"]
    (found,) = (
        one
        for one in of_kind(objects, "ClusterQueue")
        if name_of(one) == local["spec"]["clusterQueue"]
    )
    # Kueue never admits what asks for a resource that the queue does not cover.
    room: dict[str, float] = {}
    for _, resource, quota in quotas(found):
        room[resource] = max(room.get(resource, 0.0), amount(quota["nominalQuota"]))
    pods = job_of(stage)["spec"]["parallelism"]
    assert {
        name: value for name, value in requests(stage).items() if value * pods > room.get(name, 0)
    } == {}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_pods_keep_the_rules_of_their_namespace(stage: str) -> None:
    job = job_of(stage)
    template = job["spec"]["template"]
    pod, objects = template["spec"], objects_of("gpu")
    accounts = {place_of(one) for one in of_kind(objects, "ServiceAccount")}
    claims = {place_of(one) for one in of_kind(objects, "PersistentVolumeClaim")}
    namespace = job["metadata"]["namespace"]
    assert (namespace, pod["serviceAccountName"]) in accounts
    assert pod["automountServiceAccountToken"] is False
    used = {
        (namespace, volume["persistentVolumeClaim"]["claimName"])
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert used <= claims
    assert len(used) == 1
    # The network policies know stages by this label.
    assert template["metadata"]["labels"]["headrace.dev/stage"] == stage.replace("_", "-")
    for container in containers_of(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_the_flow_server_sees_the_project_where_the_stages_do() -> None:
    (flows,) = (one for one in workloads(objects_of("gpu")) if name_of(one) == "flows")
    (container,) = pod_of(flows)["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert Path(mounts["headrace"]) == SETTINGS.volume
    assert Path(container["workingDir"]).is_relative_to(SETTINGS.volume)
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["HEADRACE_LAUNCHER"] == "kubernetes"
    settings = {f"HEADRACE_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in environment if name.startswith("HEADRACE_")} <= settings


@pytest.mark.parametrize("overlay", ["kind", "gpu"])
def test_the_stages_image_has_the_tag_of_the_control_image(overlay: str) -> None:
    """Both are of one commit, and the launcher compares it with the checkout's."""
    (flows,) = (one for one in workloads(objects_of(overlay)) if name_of(one) == "flows")
    (container,) = pod_of(flows)["containers"]
    (image,) = (one["value"] for one in container["env"] if one["name"] == "HEADRACE_IMAGE")
    assert image.rpartition(":")[2] == container["image"].rpartition(":")[2]
    assert image.rpartition(":")[0] == container["image"].rpartition(":")[0].replace(
        "control", "gpu"
    )
