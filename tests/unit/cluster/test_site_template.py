"""What a site adds to `k8s/job.yaml` or `k8s/gang.yaml`, such as RDMA, is in the Jobs made of it."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from components.contract import ON_MANY_RANKS, STAGES
from tasks.cluster.manifest import GANG_TEMPLATE, TEMPLATE, is_gang, load_template, render
from tasks.config import StageResources
from tests.resources import resources
from tests.unit.cluster.rendered import PLACE, ROOT, Object, attempt, containers, require_valid
from tests.unit.cluster.rendered import TEMPLATE as OURS
from tests.unit.cluster.runs import hurry, run_folder
from tests.unit.cluster.test_launcher import JOBS, launching, of_one, routes_of_a_new_job

NETWORKS = "k8s.v1.cni.cncf.io/networks"
GANG = {"num_nodes": 2, "min_nodes": 2, "gpus": 8, "num_ranks": 1}


def with_rdma() -> tuple[Object, Object]:
    """The template with a network device, its network, and a Job's note and place of the site's own."""
    job, service = copy.deepcopy(OURS)
    job["metadata"]["annotations"] = {"site.example/owner": "research"}
    template = job["spec"]["template"]
    template["metadata"]["annotations"] = {NETWORKS: "rdma-net"}
    for container in containers(job):
        container["resources"] = {"limits": {"rdma/hca": "1"}}
    return job, service


def made(
    template: tuple[Object, Object], of: StageResources, stage: str = "pretrain", *avoid: str
) -> Object:
    job, *_ = render(template, replace(attempt(stage), avoid_nodes=avoid), of, PLACE)
    require_valid(job)
    return job


@pytest.mark.parametrize("changes", [{}, GANG])
def test_a_device_of_the_template_stays_beside_what_the_stage_asks_for(changes: Object) -> None:
    of = resources(**changes)
    plain, job = made(OURS, of), made(with_rdma(), of)
    for before, after in zip(containers(plain), containers(job), strict=True):
        limits = before["resources"]["limits"] | {"rdma/hca": "1"}
        assert after["resources"] == before["resources"] | {"limits": limits}


def test_how_much_of_the_usual_a_stage_gets_is_its_resources_say_alone() -> None:
    template = with_rdma()
    amounts = {"cpu": "1", "memory": "1Mi", "ephemeral-storage": "1Mi", "nvidia.com/gpu": "3"}
    for container in containers(template[0]):
        container["resources"] = {"limits": amounts, "requests": amounts}
    assert made(template, resources()) == made(with_no_devices(), resources())


def with_no_devices() -> tuple[Object, Object]:
    template = with_rdma()
    for container in containers(template[0]):
        del container["resources"]
    return template


@pytest.mark.parametrize("changes", [{}, GANG, GANG | {"min_nodes": 1}])
def test_notes_of_the_template_stay_beside_the_launchers(changes: Object) -> None:
    plain, job = made(OURS, resources(**changes)), made(with_rdma(), resources(**changes))
    before, after = (one["metadata"]["annotations"] for one in (plain, job))
    assert after == before | {"site.example/owner": "research"}
    of_pods = plain["spec"]["template"]["metadata"].get("annotations", {})
    assert ("kueue.x-k8s.io/podset-preferred-topology" in of_pods) == bool(changes)
    found = job["spec"]["template"]["metadata"]["annotations"]
    assert found == of_pods | {NETWORKS: "rdma-net"}


def test_a_sick_node_is_avoided_on_top_of_where_the_template_sends_pods() -> None:
    template = with_rdma()
    fast = {"key": "site.example/fabric", "operator": "In", "values": ["ib"]}
    rule = {"nodeSelectorTerms": [{"matchExpressions": [fast]}]}
    template[0]["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": rule},
        "podAntiAffinity": {},
    }
    affinity = made(template, resources(), "clean", "sick")["spec"]["template"]["spec"]["affinity"]
    (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    away = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["sick"]}
    assert term["matchExpressions"] == [fast, away]
    assert affinity["podAntiAffinity"] == {}


def test_variables_of_a_secret_of_the_template_stay_beside_ingests_credentials() -> None:
    template = with_rdma()
    (stage,) = template[0]["spec"]["template"]["spec"]["containers"]
    stage["envFrom"] = [{"configMapRef": {"name": "site"}}]
    found = made(template, resources(), "ingest")["spec"]["template"]["spec"]["containers"][0]
    names = [next(iter(one.values()))["name"] for one in found["envFrom"]]
    assert names == ["site", "ingest-credentials"]


def test_a_training_on_several_nodes_is_a_gang_and_nothing_else_is() -> None:
    on_two = resources(num_nodes=2, min_nodes=2)
    assert tuple(stage for stage in STAGES if is_gang(stage, on_two)) == ON_MANY_RANKS
    assert not any(is_gang(stage, resources(num_ranks=4, gpus=8)) for stage in STAGES)


def test_gangs_alone_are_made_of_a_template_of_their_own_and_of_the_others_if_there_is_none(
    tmp_path: Path,
) -> None:
    ours = (ROOT / TEMPLATE).read_text()
    (tmp_path / TEMPLATE).parent.mkdir()
    (tmp_path / TEMPLATE).write_text(ours)
    assert load_template(tmp_path, of_gang=True) == load_template(tmp_path) == OURS
    (tmp_path / GANG_TEMPLATE).write_text(ours.replace("restartPolicy: Never", "restartPolicy: No"))
    assert load_template(tmp_path) == OURS
    job, _ = load_template(tmp_path, of_gang=True)
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "No"


@pytest.mark.parametrize("num_nodes", [1, 2])
def test_the_launcher_makes_a_gang_of_the_gangs_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_nodes: int
) -> None:
    hurry(monkeypatch)
    run = run_folder(tmp_path)
    with launching(run.root, routes_of_a_new_job(), monkeypatch) as (server, launcher):
        ours = (tmp_path / TEMPLATE).read_text()
        marked = ours.replace("part-of: headrace", "part-of: gangs")
        (tmp_path / GANG_TEMPLATE).write_text(marked)
        launcher.run(run, of_one(num_nodes=num_nodes, min_nodes=num_nodes))
        (job,) = server.was_asked("POST", JOBS)
    part_of = job["metadata"]["labels"]["app.kubernetes.io/part-of"]
    assert part_of == {1: "headrace", 2: "gangs"}[num_nodes]
