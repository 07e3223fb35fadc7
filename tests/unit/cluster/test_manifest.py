"""A stage's Job: valid for Kubernetes 1.34 and the restricted policy whatever the resources are."""

import copy
import re
from pathlib import Path

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contract import STAGES
from tasks.cluster.checks import quantity
from tasks.cluster.manifest import (
    Place,
    left_behind,
    owned,
    render,
)
from tasks.config import StageResources
from tests.resources import DEFAULT, resources
from tests.unit.cluster.rendered import (
    TEMPLATE,
    attempt,
    containers,
    environment,
    rendered,
    require_valid,
)

SIZES_GIB = st.floats(0.0001, 4096)
RESOURCES = st.builds(
    lambda nodes, fewer, memory, shared, **more: StageResources.model_validate(
        DEFAULT | more
        | {"num_nodes": nodes, "min_nodes": max(1, nodes - fewer), "memory_gib": memory,
           "shared_memory_gib": memory * shared}
    ),
    nodes=st.integers(1, 64), fewer=st.integers(0, 64), memory=SIZES_GIB,
    shared=st.floats(0.0001, 1), queue=st.sampled_from(["data", "foundation"]),
    priority=st.sampled_from(["production", "research", "background"]), gpus=st.integers(0, 16),
    cpu=st.floats(0.0001, 1024), scratch_gib=SIZES_GIB, time_limit_h=st.floats(0.00001, 8760),
    grace_s=st.integers(1, 3600), num_ranks=st.integers(1, 8),
)  # fmt: skip
STAGE = st.sampled_from(STAGES)
PLACES = st.builds(
    Place, st.just("n"), st.just("i:t"), st.just("c"), st.just(Path("/v")), st.just(Path("/v/p")),
    st.integers(1, 60000), st.integers(1, 60000), st.booleans(),
    st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
)  # fmt: skip


@settings(max_examples=8)
@given(STAGE, RESOURCES, PLACES)
def test_whatever_the_resources_are_kubernetes_takes_the_job_and_its_service(
    stage: str, of: StageResources, place: Place
) -> None:
    job, service = rendered(stage, of, place)
    require_valid(job)
    assert (service is not None) == (of.num_nodes > 1)
    if service is not None:
        require_valid(service)
        require_valid(owned(service, {"metadata": {"name": "j", "uid": "u"}}))


def test_ingest_alone_has_credentials_and_the_job_names_them_only() -> None:
    by_stage = {stage: containers(rendered(stage, resources())[0]) for stage in STAGES}
    given = {name: [one.get("envFrom") for one in found] for name, found in by_stage.items()}
    secret = {"secretRef": {"name": "ingest-credentials", "optional": True}}
    assert given.pop("ingest") == [None, [secret]]
    assert list(given.values()) == [[None, None]] * len(given)


def test_what_the_pod_does_not_take_from_this_process_is_said_by_name_without_its_value() -> None:
    here = {
        "HEADRACE_RATER_URL": "https://u:p@rater/v1",
        "HEADRACE_RATER_KEY": "",
        "FSSPEC_S3": "{}",
    }
    (line,) = left_behind("ingest", here)
    assert line.startswith("FSSPEC_S3, HEADRACE_RATER_URL of this process are not the pod's")
    assert "rater/v1" not in line
    assert left_behind("ingest", {"HEADRACE_RATER_URL": ""}) == left_behind("sft", here) == []


def test_what_kubernetes_does_not_know_would_be_seen() -> None:
    job, _ = rendered("clean", resources())
    job["spec"]["template"]["spec"]["restartsPolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        require_valid(job)


@settings(max_examples=20)
@given(STAGE, RESOURCES, PLACES)
def test_a_pod_keeps_the_restricted_policy_and_has_no_token(
    stage: str, of: StageResources, place: Place
) -> None:
    """Kubernetes, Pod Security Standards, profile restricted: every control that a Job can break."""
    job, _ = rendered(stage, of, place)
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
        "persistentVolumeClaim", "emptyDir"
    }  # fmt: skip
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == place.uid
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(job):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert not {"privileged", "runAsUser", "seccompProfile"} & context.keys()
        assert "ports" not in container


@settings(max_examples=20)
@given(STAGE, RESOURCES)
def test_each_container_asks_for_what_the_stage_states_and_never_for_nothing(
    stage: str, of: StageResources
) -> None:
    job, _ = rendered(stage, of)
    for container in containers(job):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert set(requests) == set(limits) | {"cpu"}
        assert all(requests[name] == limits[name] for name in limits)
        read = {name: quantity(text) for name, text in requests.items()}
        assert min(read.values()) > 0
        assert read["cpu"] == pytest.approx(of.cpu, abs=0.001)
        assert read["memory"] == pytest.approx(of.memory_gib * 2**30, abs=2**20)
        assert read["ephemeral-storage"] == pytest.approx((of.scratch_gib + 1) * 2**30, abs=2**20)
        assert read.get("nvidia.com/gpu", 0) == of.gpus
    volumes = {one["name"]: one for one in job["spec"]["template"]["spec"]["volumes"]}
    for name, size_gib in (("tmp", of.scratch_gib), ("shm", of.shared_memory_gib)):
        limit = quantity(volumes[name]["emptyDir"]["sizeLimit"])
        assert limit > 0
        assert limit == pytest.approx(size_gib * 2**30, abs=2**20)
    assert volumes["project"]["persistentVolumeClaim"]["claimName"] == "claim"


@settings(max_examples=20)
@given(STAGE, RESOURCES)
def test_kueue_is_told_queue_priority_and_a_time_limit_of_at_least_a_second(
    stage: str, of: StageResources
) -> None:
    job, _ = rendered(stage, of)
    labels = job["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == of.queue
    assert labels["kueue.x-k8s.io/priority-class"] == of.priority
    limit_s = int(labels["kueue.x-k8s.io/max-exec-time-seconds"])
    assert limit_s >= 1
    assert limit_s == pytest.approx(of.time_limit_h * 3600, abs=1)
    assert job["spec"]["parallelism"] == job["spec"]["completions"] == of.num_nodes
    template = job["spec"]["template"]
    assert template["spec"]["terminationGracePeriodSeconds"] == of.grace_s
    for label in (labels, template["metadata"]["labels"]):
        for value in label.values():
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value), value


@settings(max_examples=20)
@given(STAGE, RESOURCES, PLACES)
def test_rendering_leaves_the_template_alone_and_gives_the_same_again(
    stage: str, of: StageResources, place: Place
) -> None:
    before = copy.deepcopy(TEMPLATE)
    first = render(TEMPLATE, attempt(stage), of, place)
    second = render(TEMPLATE, attempt(stage), of, place)
    assert first == second
    assert before == TEMPLATE
    containers(first[0])[0]["env"].clear()
    first[0]["metadata"]["labels"].clear()
    assert second == render(TEMPLATE, attempt(stage), of, place)
    assert containers(second[0])[1]["env"]


@settings(max_examples=20)
@given(STAGE, RESOURCES, PLACES)
def test_no_variable_is_given_twice_and_all_containers_have_the_same(
    stage: str, of: StageResources, place: Place
) -> None:
    job, _ = rendered(stage, of, place)
    first, second = containers(job)
    assert first["env"] == second["env"]
    names = [one["name"] for one in first["env"]]
    assert len(set(names)) == len(names)
    assert "HEADRACE_POD" in names
    assert int(environment(job)["OMP_NUM_THREADS"]) >= 1
    assert 1 <= int(environment(job)["HEADRACE_GRACE_S"]) <= max(1, of.grace_s - 5)
