"""A stage's Job: valid for Kubernetes 1.34 and the restricted policy whatever the resources are."""

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contract import ON_MANY_RANKS, STAGES
from components.errors import KIND_OF_EXIT_CODE
from tasks.cluster.checks import quantity
from tasks.cluster.manifest import (
    Attempt,
    Place,
    job_name,
    load_template,
    owned,
    render,
)
from tasks.config import StageResources, load_resources
from tests.resources import DEFAULT, resources

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = load_template(ROOT)
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
Object = dict[str, Any]

PLACE = Place(
    "headrace", "registry.example/headrace:abc", "claim", Path("/v"), Path("/v/p"), 1000, 1000,
    is_dev=False,
)  # fmt: skip


def attempt(stage: str, number: int = 1, key: str = "0123456789ab") -> Attempt:
    return Attempt(stage, key, number, Path("/v/p/runs") / stage / key, "a-flow-run")


def rendered(stage: str, of: StageResources, place: Place = PLACE) -> tuple[Object, Object | None]:
    job, *others = render(TEMPLATE, attempt(stage), of, place)
    return job, others[0] if others else None


def containers(job: Object) -> list[Object]:
    pod = job["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def environment(job: Object) -> dict[str, str]:
    """Of the stage's container, what has a plain value."""
    (stage,) = job["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in stage["env"] if "value" in one}


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
)  # fmt: skip


def require_valid(one: Object) -> None:
    assert kubernetes_validate.validate(one, "1.34", strict=True).startswith("1.34")


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
@given(
    STAGE,
    st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
    st.integers(1, 10**6),
    st.integers(1, 4096),
)
def test_a_name_is_a_dns_label_with_room_for_a_pods_number_and_the_same_for_the_same_attempt(
    stage: str, key: str, number: int, num_nodes: int
) -> None:
    name = job_name(stage, key, number)
    assert DNS_LABEL.fullmatch(f"{name}-{num_nodes - 1}")
    assert job_name(stage, key, number) == name
    assert job_name(stage, key, number + 1) != name
    job, *_ = render(TEMPLATE, attempt(stage, number, key), resources(), PLACE)
    assert job["metadata"]["name"] == name


def test_no_two_attempts_have_one_name() -> None:
    asked = [
        (stage, key, number)
        for stage in STAGES
        for key in ("0123456789ab", "0123456789a1")
        for number in (1, 11)
    ]
    assert len({job_name(*one) for one in asked}) == len(asked)


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


GPU_TAINT = "nvidia.com/gpu"
PROBATION, AT_RISK = "headrace.dev/probation", "headrace.dev/at-risk"
ALWAYS = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


@pytest.mark.parametrize(
    ("changes", "tolerated"),
    [
        ({"time_limit_h": 24}, {AT_RISK}),
        ({"time_limit_h": 24.01}, set()),
        ({"time_limit_h": 168, "gpus": 8}, {GPU_TAINT}),
        ({"priority": "background", "time_limit_h": 1}, {PROBATION, AT_RISK}),
        ({"priority": "background", "time_limit_h": 48, "gpus": 1}, {PROBATION, GPU_TAINT}),
        ({"priority": "production", "time_limit_h": 1}, {AT_RISK}),
    ],
)
def test_a_pod_goes_to_nodes_in_doubt_by_its_priority_and_its_time(
    changes: Object, tolerated: set[str]
) -> None:
    job, _ = rendered("pretrain", resources(**changes))
    found = job["spec"]["template"]["spec"]["tolerations"]
    assert {one["key"] for one in found} == tolerated | ALWAYS
    assert {one["key"] for one in found if one["effect"] == "NoExecute"} == ALWAYS


def test_a_pod_stays_away_from_nodes_that_were_sick_and_else_goes_anywhere() -> None:
    job, _ = rendered("clean", resources())
    assert "affinity" not in job["spec"]["template"]["spec"]
    avoiding = replace(attempt("clean"), avoid_nodes=("b", "a"))
    job, *_ = render(TEMPLATE, avoiding, resources(), PLACE)
    require_valid(job)
    rule = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = rule["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (other,) = term["matchExpressions"]
    assert (other["key"], other["operator"], other["values"]) == (
        "kubernetes.io/hostname", "NotIn", ["a", "b"]
    )  # fmt: skip


def test_an_elastic_job_says_how_small_it_may_be_and_another_does_not() -> None:
    rigid, _ = rendered("pretrain", resources(num_nodes=4, min_nodes=4))
    elastic, _ = rendered("pretrain", resources(num_nodes=4, min_nodes=2))
    added = {
        "kueue.x-k8s.io/job-min-parallelism": "2",
        "kueue.x-k8s.io/job-completions-equal-parallelism": "true",
    }
    assert elastic["metadata"]["annotations"] == rigid["metadata"]["annotations"] | added
    assert rigid["metadata"]["annotations"] == {
        "headrace.dev/run-dir": "/v/p/runs/pretrain/0123456789ab",
        "headrace.dev/flow-run": "a-flow-run",
    }


@pytest.mark.parametrize("stage", ON_MANY_RANKS)
def test_a_gang_finds_its_first_pod_by_the_services_name(stage: str) -> None:
    job, service = rendered(stage, resources(num_nodes=2, min_nodes=2, gpus=4, num_ranks=1))
    assert service is not None
    name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"] == name
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    found = environment(job)
    assert found["PET_MASTER_ADDR"] == f"{name}-0.{name}"
    assert [port["port"] for port in service["spec"]["ports"]] == [int(found["PET_MASTER_PORT"])]
    assert found["PET_NPROC_PER_NODE"] == "4"
    assert "PET_NNODES" not in found  # Kueue may admit fewer
    gang = ["--gang", "--members", f"/v/p/runs/{stage}/0123456789ab/pods/gang.json"]
    assert pod["initContainers"][0]["command"][-3:] == gang
    topology = "kueue.x-k8s.io/podset-preferred-topology"
    assert topology in job["spec"]["template"]["metadata"]["annotations"]
    without, _ = rendered(stage, resources(num_nodes=2, min_nodes=2))
    assert "annotations" not in without["spec"]["template"]["metadata"]


def test_the_pods_of_a_data_stage_are_no_gang() -> None:
    job, _ = rendered("dedup", resources(num_nodes=2, min_nodes=2))
    assert not [name for name in environment(job) if name.startswith("PET_")]
    assert "--gang" not in job["spec"]["template"]["spec"]["initContainers"][0]["command"]


@pytest.mark.parametrize(("stage", "num_ranks"), [("pretrain", "4"), ("sft", "4"), ("dpo", "1")])
def test_a_stage_that_runs_on_one_rank_does_so_on_several_gpus(stage: str, num_ranks: str) -> None:
    """On more it would run whole on each of them, and write over itself."""
    job, _ = rendered(stage, resources(gpus=4, cpu=8))
    found = environment(job)
    assert found["HEADRACE_NUM_RANKS"] == num_ranks
    assert found["OMP_NUM_THREADS"] == str(8 // int(num_ranks))
    assert found["HEADRACE_NUM_WORKERS"] == "8"


def test_a_pod_has_the_code_of_its_image_or_of_the_checkout() -> None:
    image, _ = rendered("clean", resources())
    dev, _ = rendered("clean", resources(), replace(PLACE, is_dev=True))
    assert environment(image)["PYTHONPATH"] == "/app"
    assert environment(dev)["PYTHONPATH"] == "/v/p"
    for container in containers(image):
        assert container["image"] == "registry.example/headrace:abc"
        assert container["workingDir"] == "/v/p"
        (mount,) = (one for one in container["volumeMounts"] if one["name"] == "project")
        assert mount["mountPath"] == "/v"


def test_the_commands_name_the_stage_and_its_folder() -> None:
    job, _ = rendered("reward_model", resources(gpus=1))
    preflight, stage = containers(job)
    run_dir = "/v/p/runs/reward_model/0123456789ab"
    assert preflight["command"] == [
        "python", "-m", "components.preflight", "--gpus", "1", "--shared", run_dir
    ]  # fmt: skip
    assert stage["command"] == ["python", "-m", "tasks.container", "reward_model", run_dir]
    assert job["metadata"]["name"].startswith("reward-model-")


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_renders_with_the_projects_own_resources(stage: str) -> None:
    job, service = rendered(stage, load_resources(ROOT).of(stage))
    require_valid(job)
    assert service is None
    labels = job["metadata"]["labels"]
    assert labels["headrace.dev/stage"] == stage.replace("_", "-")
    assert labels["app.kubernetes.io/part-of"] == "headrace"
    assert job["spec"]["template"]["metadata"]["labels"].items() <= labels.items()


def test_exit_codes_are_decided_by_whoever_watches() -> None:
    """All but a disruption ends the Job: the codes are those of components.errors."""
    job, _ = rendered("clean", resources())
    ignored, *rules = job["spec"]["podFailurePolicy"]["rules"]
    assert ignored == {
        "action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]
    }  # fmt: skip
    by_container = {rule["onExitCodes"]["containerName"]: rule for rule in rules}
    assert set(by_container["stage"]["onExitCodes"]["values"]) == set(KIND_OF_EXIT_CODE) - {0}
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
