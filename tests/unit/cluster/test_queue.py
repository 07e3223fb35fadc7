"""`headrace queue`: what runs and what waits, in the queue's order, for people and for programs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import InfraError, UserError
from tasks.cluster import api, queue
from tasks.cluster.api import namespace_of
from tasks.cluster.queue import rows, show, shown_age
from tasks.config import Settings
from tests.unit.cluster.recordings import document
from tests.unit.cluster.servers import (
    Answer,
    kubeconfig,
    lists,
    refuses,
    routed,
)

JOBS, PODS, WORKLOADS = (namespace_of(path, "n") for path in (api.JOBS, api.PODS, api.WORKLOADS))
Routes = dict[tuple[str, str], list[Answer]]


@pytest.mark.parametrize(
    ("age_s", "shown"),
    [
        (0, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3599.9, "59 min 59 s"),
        (3600, "1 h 0 min"), (86399, "23 h 59 min"), (86400, "1 d 0 h"), (400 * 86400 + 3700, "400 d 1 h"),
        (-3, "0 s"),
    ],
)  # fmt: skip
def test_an_age_is_shown_in_its_two_largest_units(age_s: float, shown: str) -> None:
    assert shown_age(age_s) == shown


SECONDS = {"d": 86400, "h": 3600, "min": 60, "s": 1}


@given(st.floats(0, 10**9))
def test_a_shown_age_is_never_more_than_the_age_nor_much_less(age_s: float) -> None:
    parts = re.findall(r"(\d+) (\w+)", shown_age(age_s))
    read_s = sum(int(number) * SECONDS[unit] for number, unit in parts)
    assert read_s <= age_s < read_s + SECONDS[parts[-1][1]]


def stage_of(recording: str, stage: str, **more: str) -> dict[str, Any]:
    """The Job of a recording with its labels, and its pods and Workload."""
    found = document(recording)
    name = found["job"]["metadata"]["name"]
    found["job"]["metadata"]["labels"] = {
        "headrace.dev/stage": stage, "headrace.dev/key": "k" * 12,
        "kueue.x-k8s.io/queue-name": "data", "kueue.x-k8s.io/priority-class": "research",
    } | more  # fmt: skip
    found["job"]["metadata"]["annotations"] = {
        "headrace.dev/flow-run": "a-flow", "headrace.dev/run-dir": f"/v/{stage}s/runs/{stage}/{'k' * 12}",
    }  # fmt: skip
    for pod in found["pods"]:
        pod["metadata"]["labels"] = {"batch.kubernetes.io/job-name": name}
    return found


def a_cluster() -> Routes:
    """What runs, what waits and what has ended; and a Job that is none of ours."""
    found = [
        stage_of("queued", "clean"), stage_of("preempted", "dedup"), stage_of("running", "pretrain"),
        stage_of("complete", "ingest"), stage_of("deactivated", "sft"), stage_of("no-node", "dpo"),
    ]  # fmt: skip
    for number, one in enumerate(found):
        for made in (one["job"], one["workload"]):
            made["metadata"]["creationTimestamp"] = f"2026-01-02T03:04:{number:02}Z"
    other = {"metadata": {"name": "other", "uid": "u"}, "spec": {}, "status": {}}
    pods = [pod for one in found for pod in one["pods"]]
    pods.append({"metadata": {"name": "other"}, "spec": {}, "status": {"phase": "Running"}})
    return {
        ("GET", JOBS): [lists(1, other, *[one["job"] for one in found])],
        ("GET", PODS): [lists(1, *pods)],
        ("GET", WORKLOADS): [lists(1, *[one["workload"] for one in found])],
    }


def test_what_runs_comes_before_what_waits_which_comes_in_its_order() -> None:
    with routed(a_cluster()) as (_, server):
        found = rows(server, "n")
    assert [(row.stage, row.state, row.place, row.nodes) for row in found] == [
        ("pretrain", "running", "", "dev-1"),
        ("sft", "preempted", "", ""),
        ("dpo", "starting", "", ""),
        ("clean", "queued", "1 of 2", ""),
        ("dedup", "preempted", "2 of 2", ""),
    ]
    assert [row.stage for row in found if row.why.startswith("no node: 0/1 nodes")] == ["dpo"]
    assert {row.flow_run for row in found} == {"a-flow"}
    assert [row.project for row in found][:2] == ["/v/pretrains", "/v/sfts"]
    assert {(row.key, row.queue, row.priority) for row in found} == {("k" * 12, "data", "research")}
    assert all(row.age_s > 0 for row in found)


def test_what_has_ended_is_shown_on_demand() -> None:
    with routed(a_cluster()) as (_, server):
        found = rows(server, "n", with_ended=True)
    assert [row.stage for row in found if row.state == "ended"] == ["ingest"]


def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> Settings:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", port)))
    monkeypatch.setattr(api, "PAUSES_S", (0.001,))
    return Settings(namespace="n")


def test_programs_get_json_and_nothing_else_also_from_a_server_in_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    routes = a_cluster()
    routes["GET", JOBS].insert(0, refuses(503, "ServiceUnavailable", "starting up"))
    with routed(routes) as (server, _):
        settings = asking(tmp_path, monkeypatch, server.port)
        assert show(settings, as_json=True, with_ended=False) == 0
    said = capsys.readouterr()
    assert [row["stage"] for row in json.loads(said.out)] == [
        "pretrain",
        "sft",
        "dpo",
        "clean",
        "dedup",
    ]
    assert said.err == "Kubernetes does not answer, asking again: starting up\n"


def test_people_get_a_table_or_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with routed(a_cluster()) as (server, _):
        assert (
            show(asking(tmp_path, monkeypatch, server.port), as_json=False, with_ended=False) == 0
        )
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"clean k+ +queued +1 of 2 +data +research.*\n */v/cleans ", "\n".join(lines))
    empty: Routes = {("GET", path): [lists(1)] for path in (JOBS, PODS, WORKLOADS)}
    with routed(empty) as (server, _):
        assert (
            show(asking(tmp_path, monkeypatch, server.port), as_json=False, with_ended=False) == 0
        )
    assert capsys.readouterr().out == "no stages in the namespace n\n"


def test_a_stages_folder_is_told_only_where_there_are_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = stage_of("running", "pretrain")
    routes: Routes = {
        ("GET", JOBS): [lists(1, one["job"])], ("GET", PODS): [lists(1, *one["pods"])],
        ("GET", WORKLOADS): [lists(1, one["workload"])],
    }  # fmt: skip
    with routed(routes) as (server, _):
        show(asking(tmp_path, monkeypatch, server.port), as_json=False, with_ended=False)
    said = capsys.readouterr().out
    assert "pretrain" in said
    assert "/v/" not in said


def test_a_missing_right_and_a_server_that_stays_away_are_errors_that_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = a_cluster() | {("GET", PODS): [refuses(403, "Forbidden", "may not list pods")]}
    with routed(routes) as (server, _):
        settings = asking(tmp_path, monkeypatch, server.port)
        with pytest.raises(UserError, match="Kubernetes refuses: may not list pods"):
            show(settings, as_json=True, with_ended=False)
    monkeypatch.setattr(queue, "ANSWER_S", 0.01)
    with pytest.raises(InfraError, match="Kubernetes does not answer"):
        show(settings, as_json=True, with_ended=False)
