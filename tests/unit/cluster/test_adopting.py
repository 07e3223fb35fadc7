"""Going on with a Job that another process has made."""

import threading
from pathlib import Path

import pytest

from tasks.run_dir import RunDir
from tests.unit.cluster.runs import hurry, pod_says, run_folder, said
from tests.unit.cluster.servers import Answer, Handler, event, hold, lists, refuses, says, streams
from tests.unit.cluster.test_launcher import (
    BEFORE,
    JOB,
    JOBS,
    SERVICES,
    Routes,
    complete_job,
    launching,
    of_one,
    routes_of_a_new_job,
)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_FLOW_RUN", raising=False)
    hurry(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return run_folder(tmp_path)


def routes_of_a_running_job(run: RunDir, *notes: Answer) -> Routes:
    """One that is there, whose pod has written how it ended, and which is complete once it is signed.

    `notes` are what a server answers before it takes the signature.
    """
    pod_says(run, "a", said("ok", 0))
    job, signed = complete_job(), threading.Event()
    job["status"] = {}
    job["metadata"]["annotations"] = {"headrace.dev/flow-run": "a-flow-that-died"}

    def takes(to: Handler) -> None:
        says(job)(to)
        signed.set()

    def completes(to: Handler) -> None:
        signed.wait(5)
        streams(event("MODIFIED", complete_job()), end=hold)(to)

    return routes_of_a_new_job() | {
        ("GET", JOB): [says(job)],
        ("GET", JOBS): [lists(1, job)],
        ("WATCH", JOBS): [completes],
        ("PATCH", JOB): [*notes, takes],
    }


def test_a_job_that_is_there_is_adopted(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = routes_of_a_running_job(run)
    monkeypatch.setenv("HEADRACE_FLOW_RUN", "a-flow")
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        assert launcher.goes_on(run, BEFORE)
        assert launcher.run(run, of_one()).ok
        assert server.was_asked("POST", JOBS) == []
        note, kept = server.was_asked("PATCH", JOB)
    assert note == {"metadata": {"annotations": {"headrace.dev/flow-run": "a-flow"}}}
    assert kept == {"spec": {"ttlSecondsAfterFinished": 3600}}


def test_a_job_that_is_adopted_while_kueue_is_away_is_signed_when_it_is_back(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    away = refuses(500, "InternalError", "failed calling webhook vjob.kb.io")
    routes = routes_of_a_running_job(run, away, away)
    monkeypatch.setenv("HEADRACE_FLOW_RUN", "a-flow")
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        assert launcher.run(run, of_one()).ok
        *notes, _ = server.was_asked("PATCH", JOB)
    assert notes == [{"metadata": {"annotations": {"headrace.dev/flow-run": "a-flow"}}}] * 3
    assert capfdbinary.readouterr().out.count(b"does not yet say who waits for it") == 1


def test_a_gang_that_is_adopted_gets_the_service_that_its_maker_did_not_live_to_make(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = routes_of_a_running_job(run)
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        launcher.run(run, of_one(num_nodes=2, min_nodes=2))
        assert server.was_asked("POST", JOBS) == []
        (service,) = server.was_asked("POST", SERVICES)
    (owner,) = service["metadata"]["ownerReferences"]
    assert owner["uid"] == complete_job()["metadata"]["uid"]


def test_a_job_that_a_person_adopts_is_no_more_the_flows_whose_end_would_end_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = routes_of_a_running_job(run)
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        launcher.run(run, of_one())
        note, _ = server.was_asked("PATCH", JOB)
    assert note == {"metadata": {"annotations": {"headrace.dev/flow-run": ""}}}
