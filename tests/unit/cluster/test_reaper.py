"""Which Jobs are ended because nobody waits for them, and that one in trouble does not keep the others."""

import asyncio
import copy
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.objects import FlowRun, State, StateType

from tasks.cluster import api, cancel, reaper
from tasks.cluster.api import namespace_of
from tasks.cluster.names import project_of
from tasks.cluster.reaper import CANCELLED_GRACE_S, Ended, overdue
from tasks.config import Settings
from tasks.flow_record import FlowRecord, record_path
from tasks.process import started_ticks
from tests.unit.cluster.recordings import document
from tests.unit.cluster.servers import lists, refuses, routed, says

NOW, KEEP_S = 1e6, 1800.0
LONG_AGO, JUST_NOW = NOW - KEEP_S - 1, NOW - 1


@pytest.mark.parametrize(
    ("end", "is_overdue"),
    [
        (None, False),  # it goes on
        (Ended(False, LONG_AGO), True),
        (Ended(False, NOW - KEEP_S + 1), False),  # somebody may adopt it yet
        (Ended(True, NOW - CANCELLED_GRACE_S - 1), True),
        (Ended(True, NOW - CANCELLED_GRACE_S + 1), False),  # the flow itself may be at it
        (Ended(False, NOW - CANCELLED_GRACE_S - 1), False),
        (Ended(True, NOW + 60), False),  # by another clock
    ],
)
def test_a_job_is_overdue_by_how_and_when_its_flow_ended(
    end: Ended | None, is_overdue: bool
) -> None:
    ends = {"flow": end} if end else {}
    assert overdue({"job": "flow"}, ends, NOW, KEEP_S) == (["job"] if is_overdue else [])


ENDS = st.dictionaries(
    st.sampled_from("abc"), st.builds(Ended, st.booleans(), st.floats(0, 2 * NOW)), max_size=3
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=3), st.sampled_from("abcd"), max_size=6), ENDS)
def test_only_jobs_of_flows_that_have_ended_are_overdue_and_later_no_fewer_are(
    running: dict[str, str], ends: dict[str, Ended]
) -> None:
    found = overdue(running, ends, NOW, KEEP_S)
    assert {running[name] for name in found} <= set(ends)
    assert set(found) <= set(overdue(running, ends, NOW + 100, KEEP_S))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (StateType.COMPLETED, False), (StateType.FAILED, False), (StateType.CRASHED, False),
        (StateType.CANCELLED, True), (StateType.CANCELLING, True),
        (StateType.RUNNING, None), (StateType.SCHEDULED, None), (StateType.PENDING, None),
        (StateType.PAUSED, None),
    ],
)  # fmt: skip
def test_a_flow_has_ended_by_prefects_state_of_it(kind: StateType, expected: bool | None) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    run = FlowRun(flow_id="0" * 32, state=State(type=kind, timestamp=at))
    end = reaper._end(run)
    assert end == (None if expected is None else Ended(expected, at.timestamp()))


def test_a_flow_run_without_a_state_goes_on() -> None:
    assert reaper._end(FlowRun(flow_id="0" * 32)) is None


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ({"ended_at": 7.0}, Ended(False, 7.0)),
        ({"ticks": 1}, Ended(False, 5.0)),  # killed: since it was seen first
        ({}, None),  # this very process
        (None, None),  # another project's
    ],
)
def test_of_a_flow_run_that_prefect_does_not_know_its_record_tells(
    tmp_path: Path, values: dict[str, float] | None, end: Ended | None
) -> None:
    pid = os.getpid()
    made = FlowRecord("f", 1.0, os.uname().nodename, pid, started_ticks(pid) or 0)
    path = record_path(tmp_path, "f")
    path.parent.mkdir(parents=True)
    if values is not None:
        path.write_text(json.dumps(vars(made) | values))
    assert reaper._end_on_record(tmp_path, "f", {"f": 5.0}) == end


def job(name: str, flow_run: str | None, status: dict[str, Any] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(document("running")["job"])
    made["metadata"]["name"] = name
    if flow_run is not None:
        made["metadata"]["annotations"] = {"headrace.dev/flow-run": flow_run}
    made["spec"]["template"] = {"spec": {"terminationGracePeriodSeconds": 5}}
    made["status"] = status or {}
    return made


def test_all_of_the_project_that_is_overdue_is_ended_though_one_of_them_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Prefect's answers are given; the Kubernetes that is asked and told is a server."""
    monkeypatch.setattr(cancel, "POLL_S", 0.005)
    asked: list[set[str]] = []

    async def ends(flow_runs: set[str], home: Path, over: dict[str, float]) -> dict[str, Ended]:
        asked.append(flow_runs)
        return {"over": Ended(False, 0.0)}

    monkeypatch.setattr(reaper, "_ends", ends)
    path = namespace_of(api.JOBS, "n")
    complete = document("complete")["job"]["status"]
    jobs = [
        job("refused", "over"), job("ended", "over"), job("on", "goes on"), job("nobodys", None),
        job("by-hand", ""), job("done", "over", complete),
    ]  # fmt: skip
    routes = {
        ("GET", path): [lists(1, *jobs)],
        ("PATCH", f"{path}/refused"): [refuses(403, "Forbidden", "not so")],
        ("PATCH", f"{path}/ended"): [says(jobs[1])],
        ("GET", namespace_of(api.WORKLOADS, "n")): [lists(1)],
        ("DELETE", f"{path}/ended"): [says({})],
    }
    with routed(routes) as (server, of), caplog.at_level(logging.WARNING, "headrace.reaper"):
        names = asyncio.run(reaper.reap(of, Settings(namespace="n", lost_s=1), tmp_path, {}))
        assert len(server.was_asked("DELETE", f"{path}/ended")) == 1
        (asked_for,) = [query for *route, query, _ in server.asked if route == ["GET", path]]
    own = project_of(tmp_path, "headrace")
    assert asked_for == {"labelSelector": f"headrace.dev/project={own}"}
    assert asked == [{"over", "goes on"}]
    assert names == ["ended"]
    said = [record.getMessage() for record in caplog.records]
    assert "the Job ended is ended: nobody waits for it" in said
    assert "the Job refused could not be ended: not so" in said


def test_a_round_that_fails_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reaper, "INTERVAL_S", 0.001)
    monkeypatch.setenv("KUBECONFIG", "/absent")

    async def until_the_second_fails() -> None:
        task = asyncio.create_task(reaper.watch(Settings(), tmp_path))
        while len(caplog.records) < 2 and not task.done():
            await asyncio.sleep(0.001)
        task.cancel()

    with caplog.at_level(logging.WARNING, "headrace.reaper"):
        asyncio.run(until_the_second_fails())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) >= 2
    assert said[0].startswith("Jobs without a flow are not looked for: no access to Kubernetes")
