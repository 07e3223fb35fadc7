"""Ending a Job: Kueue takes its quota, its pods write their checkpoint, and it goes."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.errors import InfraError
from tasks import outcome
from tasks.cluster import api, cancel
from tasks.cluster.api import Refused, namespace_of
from tasks.cluster.cancel import pods_are_gone
from tasks.cluster.names import project_of
from tasks.config import Settings
from tests.resources import resources_yaml
from tests.unit.cluster.recordings import document
from tests.unit.cluster.runs import KEY, STAGE, hurry, run_folder, said
from tests.unit.cluster.servers import Answer, kubeconfig, lists, refuses, routed, says

NAMESPACE = "n"
JOB = namespace_of(api.JOBS, NAMESPACE, "j")
PODS, WORKLOADS = namespace_of(api.PODS, NAMESPACE), namespace_of(api.WORKLOADS, NAMESPACE)
MARK = {"metadata": {"annotations": {"headrace.dev/cancelled": "true"}}}
Routes = dict[tuple[str, str], list[Answer]]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def found() -> dict[str, Any]:
    return document("running")


WORKLOAD = f"{WORKLOADS}/{found()['workload']['metadata']['name']}"


def routes() -> Routes:
    """A Job whose pod runs, and has ended at the second look."""
    return {
        ("PATCH", JOB): [says(found()["job"])],
        ("GET", WORKLOADS): [lists(1, found()["workload"])],
        ("PATCH", WORKLOAD): [says({})],
        ("GET", PODS): [lists(1, *found()["pods"]), lists(1)],
        ("DELETE", JOB): [says({})],
    }


def test_a_job_is_marked_then_stopped_by_kueue_and_deleted_when_its_pods_have_ended() -> None:
    with routed(routes()) as (server, of):
        cancel.cancel(of, NAMESPACE, "j", 5)
        asked = [(method, path, body) for method, path, _, body in server.asked]
    assert asked == [
        ("PATCH", JOB, MARK),
        ("GET", WORKLOADS, None),
        ("PATCH", WORKLOAD, {"spec": {"active": False}}),
        ("GET", PODS, None),
        ("GET", PODS, None),
        ("DELETE", JOB, {"propagationPolicy": "Background"}),
    ]


def test_pods_that_do_not_end_in_time_do_not_keep_the_job() -> None:
    changed = routes()
    changed["GET", PODS].pop()
    with routed(changed) as (server, of):
        cancel.cancel(of, NAMESPACE, "j", 0.01)
        assert len(server.was_asked("DELETE", JOB)) == 1


def test_a_job_that_is_gone_is_no_error() -> None:
    with routed({}) as (server, of):
        cancel.cancel(of, NAMESPACE, "j", 5)
        assert [method for method, *_ in server.asked] == ["PATCH"]


def test_a_job_whose_workload_goes_meanwhile_is_deleted_all_the_same() -> None:
    changed = routes() | {("PATCH", WORKLOAD): [refuses(404, "NotFound")]}
    with routed(changed) as (server, of):
        cancel.cancel(of, NAMESPACE, "j", 5)
        assert len(server.was_asked("DELETE", JOB)) == 1


@pytest.mark.parametrize(
    ("route", "answer"),
    [
        (("PATCH", JOB), refuses(403, "Forbidden", "not so")),
        (("GET", WORKLOADS), refuses(404, "NotFound", "not so")),
        (("PATCH", WORKLOAD), refuses(500, "InternalError", "not so")),
        (("GET", PODS), refuses(403, "Forbidden", "not so")),
        (("DELETE", JOB), refuses(503, "ServiceUnavailable", "not so")),
    ],
)
def test_what_could_not_be_ended_says_so_and_how_to_end_it(
    route: tuple[str, str], answer: Answer
) -> None:
    with routed(routes() | {route: [answer]}) as (_, of), pytest.raises(InfraError) as caught:
        cancel.cancel(of, NAMESPACE, "j", 0.05)
    assert caught.value.message.startswith("the Job j could not be ended: ")
    assert caught.value.message.endswith("not so")
    assert caught.value.hint == "kubectl -n n delete job j"


@pytest.mark.parametrize("guarded", [("PATCH", JOB), ("PATCH", WORKLOAD)])
def test_while_kueue_is_away_a_job_is_deleted_without_it_by_who_insists(
    guarded: tuple[str, str],
) -> None:
    """Its webhooks guard every change of a Job and a Workload, and no deletion."""
    away = refuses(500, "InternalError", "failed calling webhook")
    changed = routes() | {guarded: [away], ("DELETE", JOB): [refuses(503, "x"), says({})]}
    said: list[str] = []
    with routed(changed) as (server, of):
        cancel.cancel(of, NAMESPACE, "j", 5, said.append, insists=True)
        steps = [(method, path) for method, path, *_ in server.asked]
    ends = [("DELETE", JOB)] * 2 + [("GET", PODS)] * 2  # their last look finds the pods gone
    assert steps[-4:] == ends
    assert said[0] == "the Job j is deleted without Kueue's doing: failed calling webhook"


def test_who_does_not_insist_leaves_a_job_that_it_cannot_mark_alone() -> None:
    changed = routes() | {("PATCH", JOB): [refuses(500, "InternalError", "failed calling webhook")]}
    with routed(changed) as (server, of), pytest.raises(InfraError, match="failed calling webhook"):
        cancel.cancel(of, NAMESPACE, "j", 5)
    assert [method for method, *_ in server.asked] == ["PATCH"]


def test_pods_are_gone_once_none_runs_or_is_about_to() -> None:
    def pods(*phases: str) -> Answer:
        return lists(1, *[{"metadata": {}, "status": {"phase": phase}} for phase in phases])

    looks = [
        pods("Running"),
        refuses(503, "x"),
        pods("Failed", "Pending"),
        pods("Failed", "Succeeded"),
    ]
    with routed({("GET", PODS): looks}) as (server, of):
        assert pods_are_gone(of, NAMESPACE, "x=y", 5)
        assert [query for _, _, query, _ in server.asked] == [{"labelSelector": "x=y"}] * 4
    with routed({("GET", PODS): [pods("Running")]}) as (_, of):
        assert not pods_are_gone(of, NAMESPACE, "x=y", 0.01)
    with routed({("GET", PODS): [refuses(403, "Forbidden")]}) as (_, of), pytest.raises(Refused):
        pods_are_gone(of, NAMESPACE, "x=y", 5)


def test_of_a_workspace_the_jobs_that_have_not_ended_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k8s").mkdir()
    (tmp_path / "k8s" / "resources.yaml").write_text(resources_yaml())
    run = run_folder(tmp_path)
    latest = run.path.parent / "latest.json"
    latest.write_text(json.dumps({"key": KEY}))
    name = f"{STAGE}-{project_of(tmp_path, 'headrace')}-{KEY}-a1"
    stages, settings = (STAGE, "sft"), Settings(namespace=NAMESPACE)
    with routed({}) as (server, _):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", server.port)))
        assert cancel.cancel_stages(tmp_path, stages, settings) == []  # it runs on this machine
        request = json.loads(run.request.read_text()) | {"launcher": "kubernetes"}
        run.request.write_text(json.dumps(request))
        assert cancel.cancel_stages(tmp_path, stages, settings) == [name]
        assert server.was_asked("PATCH", namespace_of(api.JOBS, NAMESPACE, name)) == [MARK]
        assert len(server.asked) == 1
        outcome.write(run.path, said("ok", 0))
        assert cancel.cancel_stages(tmp_path, stages, settings) == []
