"""A stage's Job: what of it follows from its resources and from the stage."""

from dataclasses import replace

import pytest

from components.contract import ON_MANY_RANKS, STAGES
from components.errors import KIND_OF_EXIT_CODE, DataError, InfraError
from tasks.cluster.manifest import (
    render,
)
from tasks.config import load_resources
from tests.resources import resources
from tests.unit.cluster.rendered import (
    PLACE,
    ROOT,
    TEMPLATE,
    Object,
    attempt,
    containers,
    environment,
    rendered,
    require_valid,
)

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
    assert labels["headrace.dev/project"] == PLACE.project
    assert job["spec"]["template"]["metadata"]["labels"].items() <= labels.items()


def test_exit_codes_are_decided_by_whoever_watches() -> None:
    """All but a disruption ends the Job: the codes are those of components.errors. A stage that Kueue
    stops exits as the infrastructure's failures do, and counts for nothing unless a rule names that.
    """
    job, _ = rendered("clean", resources())
    ignored, *rules = job["spec"]["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    assert {(one["type"], one["status"]) for one in ignored["onPodConditions"]} == {
        ("DisruptionTarget", "True"), ("TerminatedByKueue", "True"),
    }  # fmt: skip
    by_container = {rule["onExitCodes"]["containerName"]: rule for rule in rules}
    named = {name: set(rule["onExitCodes"]["values"]) for name, rule in by_container.items()}
    ends = set(KIND_OF_EXIT_CODE) - {0, InfraError.exit_code}
    assert named == {"stage": ends, "preflight": ends - {DataError.exit_code}}
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
