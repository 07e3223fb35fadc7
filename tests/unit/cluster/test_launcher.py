"""Submitting or adopting a Job, and what a server may answer to it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.errors import InfraError, UserError
from tasks.cluster import api, following
from tasks.cluster.api import namespace_of
from tasks.cluster.launcher import KubernetesLauncher
from tasks.cluster.names import job_name
from tasks.config import Settings, StageResources
from tasks.run_dir import RunDir
from tests.resources import resources
from tests.unit.cluster.recordings import document
from tests.unit.cluster.runs import (
    ATTEMPT,
    KEY,
    PROJECT,
    STAGE,
    hurry,
    pod_says,
    run_folder,
    said,
)
from tests.unit.cluster.servers import (
    Answer,
    Routed,
    kubeconfig,
    lists,
    refuses,
    routed,
    says,
    thing,
)

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "n"
NAME = job_name(PROJECT, STAGE, KEY, ATTEMPT)
JOBS, PODS, WORKLOADS, EVENTS, SERVICES, QUEUES = (
    namespace_of(path, NAMESPACE)
    for path in (api.JOBS, api.PODS, api.WORKLOADS, api.EVENTS, api.SERVICES, api.LOCAL_QUEUES)
)
JOB = f"{JOBS}/{NAME}"
BEFORE = {"launcher": "kubernetes", "attempt": ATTEMPT}
NODE = {
    "metadata": {"name": "dev-1"},
    "spec": {},
    "status": {
        "allocatable": {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "9Gi"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
SICK = NODE | {"metadata": {"name": "sick"}}
Routes = dict[tuple[str, str], list[Answer]]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_FLOW_RUN", raising=False)
    hurry(monkeypatch)


def complete_job() -> dict[str, Any]:
    job: dict[str, Any] = document("complete")["job"]
    job["metadata"] |= {"name": NAME, "resourceVersion": "2"}
    job["spec"]["template"] = {"spec": {}}
    return job


def routes_of_a_new_job() -> Routes:
    """A server on which the Job, once made, is complete."""
    return {
        ("GET", JOB): [refuses(404, "NotFound")],
        ("GET", JOBS): [lists(1), lists(1, complete_job())],
        ("GET", PODS): [lists(1)],
        ("GET", WORKLOADS): [lists(1)],
        ("GET", EVENTS): [lists(1)],
        ("GET", api.NODES): [lists(1, NODE, SICK)],
        ("GET", QUEUES): [lists(1, thing("data"), thing("other"))],
        ("GET", api.PRIORITIES): [lists(1, thing("research"))],
        ("POST", JOBS): [says(complete_job())],
        ("POST", SERVICES): [says({})],
        ("PATCH", JOB): [says(complete_job())],
    }


@contextmanager
def launching(
    root: Path, routes: Routes, monkeypatch: pytest.MonkeyPatch, patience_s: float = 5
) -> Iterator[tuple[Routed, KubernetesLauncher]]:
    """A launcher in a project at `root`, which has access to a server of these answers.

    They are by the project's name, and `root` is another folder each time.
    """
    monkeypatch.setattr("tasks.cluster.launcher.project_of", lambda root, claim: PROJECT)
    (root / "k8s").mkdir()
    (root / "k8s" / "job.yaml").write_text((ROOT / "k8s" / "job.yaml").read_text())
    with routed(routes) as (server, _):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(root / "kubeconfig", server.port)))
        settings = Settings(
            launcher="kubernetes", namespace=NAMESPACE, image="i:1", dev=True, volume=root,
            patience_s=patience_s, lost_s=1,
        )  # fmt: skip
        yield server, KubernetesLauncher(settings, root)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return run_folder(tmp_path)


def of_one(**changes: object) -> StageResources:
    return resources(grace_s=1, **changes)


def test_a_job_is_made_and_its_result_is_the_pods(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with launching(run.root, routes_of_a_new_job(), monkeypatch) as (server, launcher):
        threading.Timer(0.02, pod_says, (run, "a", said("ok", 0))).start()
        monkeypatch.setattr(following, "RESULT_WAIT_S", 5)
        ended = launcher.run(run, of_one())
        (made,) = server.was_asked("POST", JOBS)
    assert made["metadata"]["name"] == NAME
    assert "sick" in str(made["spec"]["template"]["spec"]["affinity"])
    assert server.was_asked("POST", SERVICES) == []
    assert (ended.kind, ended.exit_code, ended.node, ended.elapsed_s) == ("ok", 0, "dev-1", 2.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"queue": "dta"}, "no queue dta for pretrain, only data, other"),
        ({"priority": "background"}, "no priority class background for pretrain, only research"),
    ],
)
def test_a_queue_or_a_priority_that_is_not_there_is_refused_with_those_that_are(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], words: str
) -> None:
    with launching(run.root, routes_of_a_new_job(), monkeypatch) as (server, launcher):
        with pytest.raises(UserError, match=words):
            launcher.run(run, of_one(**wrong))
        assert server.was_asked("POST", JOBS) == []


@pytest.mark.parametrize("autoscales", [False, True])
def test_a_stage_that_no_node_could_hold_waits_for_one_only_where_nodes_come_by_themselves(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, autoscales: bool
) -> None:
    monkeypatch.setenv("HEADRACE_AUTOSCALES", str(int(autoscales)))
    with launching(run.root, routes_of_a_new_job(), monkeypatch) as (server, launcher):
        if autoscales:
            launcher.run(run, of_one(cpu=64))
        else:
            with pytest.raises(UserError, match="no node can hold pretrain"):
                launcher.run(run, of_one(cpu=64))
        assert len(server.was_asked("POST", JOBS)) == autoscales


def test_a_gangs_service_is_made_by_whoever_made_the_job_and_owned_by_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = routes_of_a_new_job()
    routes["POST", SERVICES] = [refuses(503, "ServiceUnavailable"), says({})]
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        launcher.run(run, of_one(num_nodes=2, min_nodes=2))
        assert len(server.was_asked("POST", JOBS)) == 1
        first, again = server.was_asked("POST", SERVICES)
    assert first == again
    (owner,) = first["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Job", NAME)
    assert owner["uid"] == complete_job()["metadata"]["uid"]


def test_a_gang_without_its_service_is_not_left_to_wait_for_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = routes_of_a_new_job()
    routes["POST", SERVICES] = [refuses(403, "Forbidden", "may not create services")]
    with (
        launching(run.root, routes, monkeypatch) as (_, launcher),
        pytest.raises(UserError, match="Kubernetes refuses: may not create services"),
    ):
        launcher.run(run, of_one(num_nodes=2, min_nodes=2))


def test_of_two_who_make_the_same_job_the_second_takes_the_firsts(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = routes_of_a_new_job()
    routes["POST", JOBS] = [refuses(503, "x"), refuses(409, "AlreadyExists")]
    routes["GET", JOB] = [refuses(404, "NotFound"), refuses(503, "x"), says(complete_job())]
    routes["POST", SERVICES] = [refuses(409, "AlreadyExists")]
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        ended = launcher.run(run, of_one(num_nodes=2, min_nodes=2))
        assert len(server.was_asked("POST", JOBS)) == 2
    assert ended.message == "the Job is complete, but its result is not on the volume"


@pytest.mark.parametrize(
    ("refused", "no", "kind", "words"),
    [
        (("POST", JOBS), refuses(422, "Invalid", "wrong"), UserError, "Kubernetes refuses: wrong"),
        (("POST", JOBS), refuses(403, "Forbidden", "exceeded quota: x"), InfraError, "exceeded quota"),
        (("POST", JOBS), refuses(404, "NotFound", "no such namespace"), UserError, "no such namespace"),
        (("GET", api.NODES), refuses(403, "Forbidden", "no"), UserError, "Kubernetes refuses: no"),
        (("GET", JOB), refuses(401, "Unauthorized"), InfraError, "Kubernetes refuses: Unauthorized"),
        (("GET", JOBS), refuses(403, "Forbidden", "no"), UserError, "Kubernetes refuses: no"),
    ],
)  # fmt: skip
def test_a_no_to_anything_is_an_error_that_says_who_must_act(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, str], no: Answer,
    kind: type[InfraError | UserError], words: str,
) -> None:  # fmt: skip
    routes = routes_of_a_new_job() | {refused: [no]}
    with (
        launching(run.root, routes, monkeypatch) as (_, launcher),
        pytest.raises(kind, match=words),
    ):
        launcher.run(run, of_one())


def test_a_job_that_failed_is_kept_for_people(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with launching(run.root, routes_of_a_new_job(), monkeypatch) as (server, launcher):
        assert not launcher.run(run, of_one()).ok  # its result is not on the volume
        assert server.was_asked("PATCH", JOB) == []


def test_what_ran_before_is_gone_on_with_only_if_it_is_there_and_wanted(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = complete_job()
    cancelled["metadata"]["annotations"] = {"headrace.dev/cancelled": "true"}
    routes: Routes = {
        ("GET", JOB): [refuses(404, "NotFound"), says(cancelled), says(complete_job())]
    }
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        assert not launcher.goes_on(run, {"launcher": "local", "attempt": ATTEMPT})
        assert server.asked == []
        assert not launcher.goes_on(run, BEFORE)
        assert not launcher.goes_on(run, BEFORE)
        assert launcher.goes_on(run, BEFORE)


def test_a_result_that_nobody_took_is_gone_on_with_though_its_job_is_gone(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod_says(run, "a", said("ok", 0))
    routes = routes_of_a_new_job() | {("GET", JOBS): [lists(1)]}
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        assert launcher.goes_on(run, BEFORE)
        assert launcher.run(run, of_one()).ok
        assert server.was_asked("POST", JOBS) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting_for_a_server_that_is_away(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    routes: Routes = {("GET", JOB): [refuses(503, "ServiceUnavailable")]}
    with launching(run.root, routes, monkeypatch, patience_s=60) as (_, launcher):
        threading.Timer(0.05, signal.raise_signal, (number,)).start()
        with pytest.raises(InfraError, match="stopped before the stage began"):
            launcher.run(run, of_one())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_what_is_left_of_an_earlier_attempt_ends_before_the_next_one_begins(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, done = complete_job(), complete_job()
    earlier["metadata"]["name"], earlier["status"] = "pretrain-earlier", {}
    done["metadata"]["name"] = "pretrain-done"
    for job in (earlier, done):
        job["metadata"]["labels"] = {"headrace.dev/project": PROJECT}
    routes = routes_of_a_new_job()
    routes["GET", JOBS][0] = lists(1, earlier, done)
    routes["DELETE", f"{JOBS}/pretrain-earlier"] = [says({})]
    routes["GET", PODS].insert(
        0, lists(1, {"metadata": {"name": "p"}, "status": {"phase": "Running"}})
    )
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        launcher.run(run, of_one())
        steps = [(method, path) for method, path, *_ in server.asked if method != "WATCH"]
    assert steps[:6] == [
        ("GET", JOB), ("GET", JOBS), ("DELETE", f"{JOBS}/pretrain-earlier"), ("GET", PODS),
        ("GET", PODS), ("GET", api.NODES),
    ]  # fmt: skip
