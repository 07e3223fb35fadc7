"""Whose a Job is: one for each attempt of a project, and never another project's of the same key."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contract import STAGES
from tasks.cluster.launcher import KubernetesLauncher
from tasks.cluster.manifest import render
from tasks.cluster.names import is_of, job_name, project_of
from tasks.config import EXPERIMENTS, Settings
from tests.resources import resources
from tests.unit.cluster.rendered import PLACE, TEMPLATE, Object, attempt
from tests.unit.cluster.runs import KEY, PROJECT, STAGE, hurry, run_folder
from tests.unit.cluster.servers import kubeconfig, lists, routed, says
from tests.unit.cluster.test_launcher import (
    BEFORE,
    JOBS,
    NAMESPACE,
    PODS,
    complete_job,
    launching,
    of_one,
    routes_of_a_new_job,
)

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
POD_SUFFIX = "-abcde"
DIGITS = {n: st.from_regex(rf"[0-9a-f]{{{n}}}", fullmatch=True) for n in (8, 12)}


@settings(max_examples=20)
@given(DIGITS[8], st.sampled_from(STAGES), DIGITS[12], st.integers(1, 10**6), st.integers(1, 4096))
def test_a_name_is_a_dns_label_with_room_for_a_pods_and_the_same_for_the_same_attempt(
    project: str, stage: str, key: str, number: int, num_nodes: int
) -> None:
    name = job_name(project, stage, key, number)
    assert DNS_LABEL.fullmatch(f"{name}-{num_nodes - 1}{POD_SUFFIX}")
    assert job_name(project, stage, key, number) == name
    assert job_name(project, stage, key, number + 1) != name
    place = replace(PLACE, project=project)
    job, *_ = render(TEMPLATE, attempt(stage, number, key), resources(), place)
    assert job["metadata"]["name"] == name


def test_no_two_attempts_have_one_name() -> None:
    asked = [
        (project, stage, key, number)
        for project in ("abcdef01", "abcdef0a")
        for stage in STAGES
        for key in ("0123456789ab", "0123456789a1")
        for number in (1, 11)
    ]
    assert len({job_name(*one) for one in asked}) == len(asked)


def test_a_project_is_its_folder_on_its_volume_by_whatever_name_and_process_it_is_asked(
    tmp_path: Path,
) -> None:
    home = Path("/absent/project")
    assert project_of(home, "headrace") == "a516b73c"  # of another process, too
    assert project_of(home, "other") != project_of(home, "headrace")
    assert project_of(home.with_name("alice"), "headrace") != project_of(home, "headrace")
    (tmp_path / "link").symlink_to(tmp_path)
    assert project_of(tmp_path / "link", "c") == project_of(tmp_path, "c")


@pytest.mark.parametrize("below", [EXPERIMENTS / "e1", Path(".dvc/tmp/exps/e2")])
def test_an_experiment_shares_the_jobs_of_its_project(tmp_path: Path, below: Path) -> None:
    assert project_of(tmp_path / below, "c") == project_of(tmp_path, "c")


def of(project: str | None, folder: str = "/v/p") -> Object:
    """A Job of the key that runs."""
    job = complete_job()
    labels = {"headrace.dev/project": project} if project else {}
    notes = {"headrace.dev/run-dir": f"{folder}/runs/{STAGE}/{KEY}"}
    job["metadata"] |= {"labels": labels, "annotations": notes}
    return job | {"status": {}}


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (of(PROJECT), True),
        (of("00000000"), False),  # the same path on another volume
        (of(None, "/v/p"), True),
        (of(None, "/v/other"), False),
        (complete_job(), False),
    ],
)
def test_a_job_is_a_runs_by_its_project_or_without_one_by_its_folder(
    job: Object, expected: bool
) -> None:
    assert is_of(job, PROJECT, Path("/v/p/runs") / STAGE / KEY) is expected


def test_before_an_attempt_begins_another_projects_jobs_of_the_key_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    run = run_folder(tmp_path)
    there = {
        "own": of(PROJECT), "others": of("00000000"),
        "old": of(None, str(tmp_path)), "others-old": of(None, "/v/other"),
    }  # fmt: skip
    for name, job in there.items():
        job["metadata"]["name"] = name
    routes = routes_of_a_new_job()
    routes["GET", JOBS][0] = lists(1, *there.values())
    routes |= {("DELETE", f"{JOBS}/{name}"): [says({})] for name in there}
    with launching(run.root, routes, monkeypatch) as (server, launcher):
        launcher.run(run, of_one())
        ended = [path for method, path, *_ in server.asked if method == "DELETE"]
        first, *_ = [query for *route, query, _ in server.asked if route == ["GET", PODS]]
    assert ended == [f"{JOBS}/own", f"{JOBS}/old"]
    selector = f"headrace.dev/project={PROJECT},headrace.dev/key={KEY}"
    assert first == {"labelSelector": selector}


def test_a_launch_in_one_checkout_looks_for_no_job_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same key, and go on with an attempt of the same number."""
    looked_for = []
    for name in ("alice", "bob"):
        run = run_folder(tmp_path / name)
        with routed({}) as (server, _):
            monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / name / "k", server.port)))
            place = Settings(namespace=NAMESPACE, image="i:1", dev=True, volume=tmp_path)
            assert not KubernetesLauncher(place, run.root).goes_on(run, BEFORE)
            looked_for += [path for _, path, *_ in server.asked]
    projects = [project_of(tmp_path / name, "headrace") for name in ("alice", "bob")]
    assert looked_for == [f"{JOBS}/{job_name(one, STAGE, KEY, 1)}" for one in projects]
    assert len(set(looked_for)) == 2
