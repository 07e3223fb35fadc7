"""Every way in which a stage can fail on a cluster, for real: the right kind, words, and who tries again."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import projects
from tests.cluster.conftest import Place, volumes
from tests.cluster.test_jobs import held_pod, hold, jobs, let_go, outcome_of, start
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for

SERVERS = [sys.executable, "-m", "k8s.devcluster"]


def launch(place: Place, stage: str = "source", **variables: str) -> str:
    process = start(place, stage, **variables)
    said, _ = process.communicate(timeout=240)
    return said


def fail(place: Place, fate: str, **variables: str) -> dict[str, Any]:
    toy.set_param(place.root, "source", fate=fate)
    launch(place, **variables)
    return outcome_of(place, "source")


def server(verb: str, name: str) -> None:
    subprocess.run([*SERVERS, verb, name], cwd=toy.ROOT, check=True)


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """A server of the cluster killed with -9 while the body runs."""
    server("kill", name)
    try:
        yield
    finally:
        server("restart", name)


@pytest.mark.parametrize(
    ("fate", "kind", "code", "words"),
    [
        ("user", "user", 64, "the number is wrong"),
        ("data", "data", 65, "the shard is empty"),
        ("bug", "bug", 70, "ZeroDivisionError: by zero"),
        ("out of memory", "user", 64, "source ran out of memory"),
    ],
)
def test_a_stages_own_words_and_kind_come_back(
    place: Place, fate: str, kind: str, code: int, words: str
) -> None:
    ended = fail(place, fate)
    assert (ended["kind"], ended["exit_code"], ended["message"]) == (kind, code, words)
    assert ended["node"] == "dev-1"
    (job,) = jobs(place)
    assert job["status"]["conditions"][-1]["reason"] == "PodFailurePolicy"


def test_what_the_infrastructure_did_is_tried_again_in_a_new_job_which_goes_on(
    place: Place,
) -> None:
    assert fail(place, "infra once")["kind"] == "infra"
    launch(place)
    ended = outcome_of(place, "source")
    assert (ended["kind"], ended["attempt"]) == ("ok", 2)
    assert [job["metadata"]["name"][-3:] for job in jobs(place)] == ["-a1", "-a2"]


def test_a_stage_that_eats_more_than_its_memory_is_the_users_affair(place: Place) -> None:
    projects.set_resources(place.root, "source", memory_gib=0.2)
    ended = fail(place, "eats memory")
    assert ended["kind"] == "user"
    assert "ran out of memory" in ended["message"]


def test_a_node_that_fails_its_pre_check_fails_the_job_and_is_named(place: Place) -> None:
    limits = place.root / "components" / "preflight" / "skus.yaml"
    text = limits.read_text()
    assert "disk_used_fraction_max: 0.95" in text
    limits.write_text(text.replace("disk_used_fraction_max: 0.95", "disk_used_fraction_max: 0.01"))
    launch(place)
    ended = outcome_of(place, "source")
    assert (ended["kind"], ended["exit_code"], ended["node"]) == ("node", 69, "dev-1")
    assert "dev-1 failed its pre-check: " in ended["message"]
    assert "used, allowed 1%" in ended["message"]


def test_an_image_with_an_impossible_name_is_the_users_affair(place: Place) -> None:
    launch(place, HEADRACE_IMAGE="dev.local/Not An Image:1")
    ended = outcome_of(place, "source")
    assert ended["kind"] == "user"
    assert "cannot be pulled: InvalidImageName" in ended["message"]
    assert jobs(place) == []


def test_a_registry_that_does_not_answer_is_the_infrastructures(place: Place) -> None:
    launch(place, HEADRACE_IMAGE="dev.local/headrace:absent", HEADRACE_PULL_PATIENCE_S="5")
    ended = outcome_of(place, "source")
    assert (ended["kind"], ended["hint"]) == (
        "infra",
        "is it built and pushed? HEADRACE_IMAGE names it",
    )
    assert "dev.local/headrace:absent cannot be pulled" in ended["message"]


def test_a_stage_that_fits_no_node_now_waits_and_says_why_until_it_does(place: Place) -> None:
    projects.kubectl("cordon", "dev-1")
    try:
        process = start(place, "source")
        told = wait_for(lambda: told_of(place, "no node: "))
        assert "1 node(s) were unschedulable" in told
    finally:
        projects.kubectl("uncordon", "dev-1")
    said, _ = process.communicate(timeout=240)
    assert outcome_of(place, "source")["kind"] == "ok", said


def test_while_all_nodes_are_sick_a_stage_waits_with_the_reason_in_view(place: Place) -> None:
    names = [node["metadata"]["name"] for node in projects.get("nodes")["items"]]
    taint = "headrace.dev/unhealthy"
    projects.kubectl("taint", "node", *names, f"{taint}=ecc:NoSchedule")
    try:
        process = start(place, "source")
        told = wait_for(lambda: told_of(place, "kept out"))
        num = len(names)
        assert f"starting: no node: 0/{num} nodes are available" in told
        assert f"{num} of {num} nodes that could hold it are kept out as sick: ecc ({num})" in told
    finally:
        projects.kubectl("taint", "node", *names, f"{taint}-")
    said, _ = process.communicate(timeout=240)
    assert outcome_of(place, "source")["kind"] == "ok", said


def test_a_volume_that_is_not_there_is_the_users_affair(place: Place) -> None:
    said = launch(place, HEADRACE_CLAIM="nothing", HEADRACE_PULL_PATIENCE_S="3")
    assert "source: user error: no volume for the pod: " in said
    assert 'persistentvolumeclaim "nothing" not found' in said
    assert "HEADRACE_CLAIM names it" in said
    wait_for(lambda: jobs(place) == [])


def test_a_stage_that_writes_more_scratch_than_it_asked_for_is_the_users_affair(
    place: Place,
) -> None:
    projects.set_resources(place.root, "source", scratch_gib=0.05)
    toy.add_code(place.root, "source", "\nos.environ['FILLS'] = '/tmp'\n")
    ended = fail(place, "fills")
    assert ended["kind"] == "user"
    assert 'evicted from dev-1: Usage of EmptyDir volume "tmp" exceeds' in ended["message"]
    assert "raise scratch_gib" in ended["hint"]


def test_a_stage_that_takes_longer_than_its_limit_is_the_users_affair(place: Place) -> None:
    projects.set_resources(place.root, "source", time_limit_h=6 / 3600)
    hold(place)
    launch(place)
    ended = outcome_of(place, "source")
    assert (ended["kind"], ended["message"]) == ("user", "its time limit is over")
    assert jobs(place) == []


def test_a_launch_waits_for_kueue_when_its_webhook_is_down(place: Place) -> None:
    with without("kueue"):
        process = start(place, "source")
        wait_for(lambda: told_of(place, "Kubernetes does not answer"))
        assert jobs(place) == []
    process.communicate(timeout=240)
    assert outcome_of(place, "source")["kind"] == "ok"


@pytest.mark.timeout(600)  # after it everybody looks for the server again at a time of his own
def test_a_stage_outlives_an_api_server_that_is_down_for_a_minute(place: Place) -> None:
    hold(place)
    process = start(place, "source")
    pod = wait_for(lambda: held_pod(place))
    with without("kube-apiserver"):
        time.sleep(30)
        let_go(place)  # it ends while nobody can be told
        time.sleep(30)
    said, _ = process.communicate(timeout=200)
    ended = outcome_of(place, "source")
    assert (ended["kind"], ended["attempt"]) == ("ok", 1), said
    assert pods_of(place) == [pod]


def test_a_full_volume_is_the_infrastructures_and_leaves_no_half_output(
    namespace: str, template: Path
) -> None:
    folder = volumes[namespace] / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    try:
        place = Place(projects.copy(template, folder / "project"), namespace)
        variables = {"HEADRACE_VOLUME": str(volumes[namespace])}
        toy.set_param(place.root, "source", fate="fills")
        said = launch(place, **variables)
        told = rf"infra error: .* {place.root}/runs/.*: No space left on device; a shared volume"
        assert re.search(told, said), said
        assert not (place.root / "artifacts" / "source").exists()
    finally:
        projects.kubectl("delete", "jobs", "--all", "-n", namespace, "--cascade=foreground")
        subprocess.run(["umount", "-l", str(folder)], check=True)


def told_of(place: Place, words: str) -> str:
    """The first thing told of the stage's Job that has `words` in it."""
    for path in (place.root / "runs").glob("source/*/job.json"):
        with contextlib.suppress(ValueError):
            for _, text in json.loads(path.read_text())["history"]:
                if words in text:
                    return str(text)
    return ""


def pods_of(place: Place) -> list[str]:
    return [pod["metadata"]["name"] for pod in projects.get("pods", "-n", place.namespace)["items"]]
