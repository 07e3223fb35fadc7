"""Seeing a Job to its end, from what a server says of it at one moment after the other."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import InfraError, UserError
from tasks.cluster import api, following
from tasks.cluster.api import Api, namespace_of
from tasks.cluster.diagnose import Verdict
from tasks.cluster.following import follow
from tasks.cluster.progress import JobProgress, read
from tasks.cluster.signals import Signals
from tasks.cluster.situation import gang
from tasks.config import Settings
from tasks.run_dir import RunDir
from tests.resources import resources
from tests.unit.cluster.recordings import document, seen
from tests.unit.cluster.runs import hurry, pod_says, run_folder, said
from tests.unit.cluster.servers import (
    Answer,
    lists,
    refuses,
    routed,
)

NAMESPACE = "n"
SETTINGS = Settings(
    launcher="kubernetes", namespace=NAMESPACE, patience_s=5, lost_s=5, pull_patience_s=5
)
JOBS, PODS, WORKLOADS, EVENTS = (
    namespace_of(path, NAMESPACE) for path in (api.JOBS, api.PODS, api.WORKLOADS, api.EVENTS)
)
Routes = dict[tuple[str, str], list[Answer]]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def told(recording: str) -> Routes:
    """A server that says what was recorded, and nothing new."""
    found = seen(recording)
    if found.job:
        pod = {"subdomain": found.job["metadata"]["name"]} if recording.startswith("gang") else {}
        found.job["spec"]["template"] = {"spec": pod}
    return {
        ("GET", JOBS): [lists(1, *filter(None, [found.job]))],
        ("GET", PODS): [lists(1, *found.pods)],
        ("GET", WORKLOADS): [lists(1, *filter(None, [found.workload]))],
        ("GET", EVENTS): [lists(1)],
    }


def name_of(recording: str) -> str:
    job = document(recording)["job"]
    return str(job["metadata"]["name"]) if job else "pretrain-gone-a1"


def followed(
    server: Api,
    run: RunDir,
    name: str,
    signals: Signals | None = None,
    settings: Settings = SETTINGS,
) -> Verdict:
    progress = JobProgress(run, name)
    hasty = resources().model_copy(update={"grace_s": 0.05})
    return follow(server, settings, run, name, hasty, progress, signals or Signals())


def history(run: RunDir) -> list[str]:
    return [text for _, text in read(run.path)["history"]]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return run_folder(tmp_path)


def test_a_failed_job_ends_with_its_verdict_and_the_clusters_warnings(run: RunDir) -> None:
    routes = told("stage-64")
    name = name_of("stage-64")
    of_it = {"involvedObject": {"name": name}, "reason": "Failed", "message": "why\nmore"}
    other = {"involvedObject": {"name": "other"}, "reason": "Failed", "message": "not ours"}
    routes["GET", EVENTS] = [lists(1, *[
        one | {"metadata": {"uid": str(i)}} for i, one in enumerate([of_it, other, of_it])
    ])]  # fmt: skip
    with routed(routes) as (_, server):
        assert followed(server, run, name) == Verdict(
            "user", "the number is wrong", "mend it", "dev-1"
        )
    assert history(run) == ["ended on dev-1", "Failed: why", "Failed: why"]


def test_what_the_pods_of_a_failed_job_said_counts_although_their_watch_lags_behind(
    run: RunDir,
) -> None:
    routes = told("stage-64")
    early = [pod | {"status": {"phase": "Running"}} for pod in seen("stage-64").pods]
    routes["GET", PODS].insert(0, lists(1, *early))
    with routed(routes) as (_, server):
        assert followed(server, run, name_of("stage-64")).message == "the number is wrong"


def test_a_complete_job_ends_with_what_its_pod_wrote(run: RunDir) -> None:
    pod_says(run, "a", said("ok", 0))
    with routed(told("complete")) as (_, server):
        assert followed(server, run, name_of("complete")) == Verdict("ok", "", "", "dev-1")


def test_of_a_complete_job_the_word_of_a_pod_that_was_stopped_before_is_not_the_last(
    run: RunDir,
) -> None:
    """A network's file system shows the new holder a moment after the Job is complete."""
    pod_says(run, "a", said("infra", 75, "stopped by SIGTERM"))
    later = threading.Timer(0.02, pod_says, (run, "b", said("ok", 0)))
    later.start()
    with routed(told("complete")) as (_, server):
        assert followed(server, run, name_of("complete")).kind == "ok"
    later.join()


@pytest.mark.parametrize("ended", [None, said("ok", 0, attempt=7)])
def test_a_complete_job_without_a_result_on_the_volume_is_no_success(
    run: RunDir, ended: Any
) -> None:
    pod_says(run, "a", ended)
    with routed(told("complete")) as (_, server):
        found = followed(server, run, name_of("complete"))
    assert (found.kind, found.hint) == (
        "infra", "is the shared volume the same here and in the pods?"
    )  # fmt: skip


def test_a_job_that_was_gone_at_the_first_look_is_waited_for_as_long_as_its_pods_run(
    run: RunDir,
) -> None:
    routes = told("deleted")
    gone = threading.Event()

    def then_gone(to: Any) -> None:
        time.sleep(0.05)
        gone.set()
        refuses(410, "Expired")(to)

    routes["WATCH", PODS] = [then_gone, refuses(410, "Expired")]
    routes["GET", PODS].append(lists(2))
    with routed(routes) as (_, server):
        found = followed(server, run, "pretrain-gone-a1")
    assert gone.is_set()
    assert (found.kind, found.message) == (
        "infra", "the Job pretrain-gone-a1 is gone: somebody deleted it"
    )  # fmt: skip
    assert history(run)[0] == "stopping on dev-1: its Job is gone"


def test_a_job_that_is_gone_after_its_pod_has_ended_ends_as_the_pod_said(run: RunDir) -> None:
    pod_says(run, "a", said("ok", 0))
    routes = told("deleted") | {("GET", PODS): [lists(1)]}
    with routed(routes) as (_, server):
        assert followed(server, run, "pretrain-gone-a1").kind == "ok"


def test_one_that_waits_says_its_place_and_why(run: RunDir) -> None:
    signals = Signals()
    routes = told("queued")
    workload = document("queued")["workload"]
    before = document("queue")["workloads"]
    routes["GET", WORKLOADS] = [lists(1, *before, workload)]
    with routed(routes) as (_, server):
        telling(run, lambda: bool(history(run)), signals)
        with pytest.raises(InfraError, match="goes on"):
            followed(server, run, name_of("queued"), signals)
    assert history(run)[0].startswith("queued: place 1 of 5; couldn't assign flavors")


def telling(run: RunDir, holds: Callable[[], bool], signals: Signals) -> None:
    """Detach once something holds."""

    def wait() -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if (run.path / "job.json").exists() and holds():
                break
            time.sleep(0.005)
        signals.is_detached = True
        signals.changed.set()

    threading.Thread(target=wait, daemon=True).start()


def test_the_pods_of_a_gang_are_told_who_they_are_once_all_are_there(run: RunDir) -> None:
    signals = Signals()
    with routed(told("gang")) as (_, server):
        telling(run, lambda: "running on dev-1" in history(run), signals)
        with pytest.raises(InfraError, match="goes on"):
            followed(server, run, name_of("gang"), signals)
    assert json.loads((run.path / "pods" / "gang.json").read_text()) == gang(seen("gang"))


def test_one_that_is_told_to_let_go_leaves_the_job_alone(run: RunDir) -> None:
    signals = Signals()
    signals.is_detached = True
    with routed(told("running")) as (asked, server):
        with pytest.raises(InfraError, match=f"the Job {name_of('running')} goes on"):
            followed(server, run, name_of("running"), signals)
        assert {method for method, *_ in asked.asked} <= {"GET", "WATCH"}


@pytest.mark.parametrize(
    ("flag", "words"), [("is_cancelled", "could not be ended"), ("is_detached", "goes on")]
)
def test_a_signal_is_heard_while_the_server_is_away(run: RunDir, flag: str, words: str) -> None:
    signals = Signals()
    patient = Settings(launcher="kubernetes", namespace=NAMESPACE, patience_s=3600, lost_s=0.05)
    with routed({}) as (_, server):
        pass

    def tell() -> None:
        setattr(signals, flag, True)
        signals.changed.set()

    threading.Timer(0.03, tell).start()
    with pytest.raises(InfraError, match=words):
        followed(server, run, name_of("running"), signals, patient)


def test_a_server_that_stays_away_is_left_with_the_job_as_it_is(run: RunDir) -> None:
    with routed({}) as (_, server):
        pass
    hasty = Settings(launcher="kubernetes", namespace=NAMESPACE, patience_s=0.05)
    with pytest.raises(InfraError, match="Kubernetes has not answered for 0 s") as caught:
        followed(server, run, name_of("running"), None, hasty)
    assert caught.value.hint == "the Job goes on; run it again to adopt it"


@pytest.mark.parametrize("refused", [JOBS, PODS, WORKLOADS])
def test_a_right_that_is_missing_is_named(run: RunDir, refused: str) -> None:
    routes = told("running") | {("GET", refused): [refuses(403, "Forbidden", "may not list it")]}
    with routed(routes) as (_, server), pytest.raises(UserError, match="may not list it"):
        followed(server, run, name_of("running"))


def test_a_server_that_comes_back_between_two_looks_disturbs_nobody() -> None:
    """Another thread may find it there at any moment: also between two words of one line."""

    class Flickering:
        refusal = None
        listed = threading.Event()
        num_reads = 0

        @property
        def away_since(self) -> float | None:
            self.num_reads += 1
            return time.monotonic() if self.num_reads % 2 else None

    one = Flickering()
    one.listed.set()
    following._require_answers([one, one, one], 60)  # type: ignore[list-item]
    assert one.num_reads == 3


def test_a_pause_ends_with_a_signal() -> None:
    signals = Signals()
    signals.pause(0.001)
    signals.is_cancelled = True
    signals.changed.set()
    with pytest.raises(InfraError, match="stopped before the stage began"):
        signals.pause(60)
