"""Flows whose stages are Jobs: retried, killed and adopted, cancelled, and cleared away when nobody waits."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Running

from flows.pipeline import pipeline
from tasks.cluster import reaper
from tasks.cluster.api import connect
from tasks.cluster.queue import rows
from tasks.config import Settings
from tests.cluster.conftest import Place
from tests.cluster.test_jobs import (
    assert_each_step_once,
    checkpoint_of,
    held_pod,
    hold,
    is_all_gone,
    is_held_after,
    jobs,
    let_go,
    outcome_of,
    running_pod,
    start,
)
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import Console
from tests.integration.tasks.processes import wait_for


def begin(place: Place, prefect_api: str, *stages: str) -> "subprocess.Popen[str]":
    variables = place.variables | {"PREFECT_API_URL": prefect_api}
    variables.pop("HEADRACE_LAUNCHER")
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "run", *stages, "--launcher", "kubernetes"],
        cwd=place.root, text=True, env=toy.environment() | variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def records(place: Place) -> list[dict[str, object]]:
    found = [
        json.loads(path.read_text()) for path in (place.root / "runs" / "flows").glob("*.json")
    ]
    return [one for one in found if "states" in one]


def test_a_flow_runs_its_stages_as_jobs_and_tries_again_what_the_infrastructure_broke(
    place: Place, prefect_api: str
) -> None:
    toy.set_param(place.root, "left", fate="infra once")
    said, _ = (process := begin(place, prefect_api)).communicate(timeout=240)
    assert process.returncode == 0, said
    assert outcome_of(place, "left")["attempt"] == 2
    assert sorted(job["metadata"]["name"].split("-")[0] for job in jobs(place)) == [
        "join", "left", "left", "right", "source",
    ]  # fmt: skip
    (record,) = records(place)
    flow_runs = {job["metadata"]["annotations"]["headrace.dev/flow-run"] for job in jobs(place)}
    assert flow_runs == {record["id"]}


def test_a_killed_flow_leaves_its_job_to_the_next_one(place: Place, prefect_api: str) -> None:
    toy.set_param(place.root, "source", num_steps=30, step_s=0.1)
    hold(place)
    process = begin(place, prefect_api)
    pod = wait_for(lambda: running_pod(place))
    process.kill()
    process.communicate()
    wait_for(lambda: is_held_after(place, 15))  # what the flow began goes on
    assert running_pod(place) == pod
    (killed,) = records(place)
    assert flow_run_of_source(place) == killed["id"]
    again = begin(place, prefect_api)
    wait_for(lambda: flow_run_of_source(place) != killed["id"], 240)
    let_go(place)
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert outcome_of(place, "source")["attempt"] == 1
    assert len(jobs(place)) == 4
    (newest,) = [record["id"] for record in records(place) if record["id"] != killed["id"]]
    assert flow_run_of_source(place) == newest


def flow_run_of_source(place: Place) -> str:
    (source,) = [job for job in jobs(place) if job["metadata"]["name"].startswith("source")]
    return str(source["metadata"]["annotations"]["headrace.dev/flow-run"])


def test_a_flow_that_is_interrupted_ends_its_job_and_the_next_one_goes_on(
    place: Place, prefect_api: str
) -> None:
    hold(place)
    process = begin(place, prefect_api)
    wait_for(lambda: held_pod(place))
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    wait_for(lambda: is_all_gone(place))
    assert checkpoint_of(place) == 1
    let_go(place)
    said, _ = (again := begin(place, prefect_api, "source")).communicate(timeout=240)
    assert again.returncode == 0, said
    assert_each_step_once(place)
    assert toy.text_of(place.root, "source") == "s"


@pytest.mark.timeout(600)
def test_cancel_in_prefect_ends_the_job_after_its_checkpoint_and_the_next_run_goes_on(
    place: Place, console: Console
) -> None:
    hold(place)
    run = console.start("one-stage", stage="source", launcher="kubernetes")
    wait_for(lambda: held_pod(place), 120)
    (job,) = jobs(place)
    assert job["metadata"]["annotations"]["headrace.dev/flow-run"] == run
    console.cancel(run)
    wait_for(lambda: is_all_gone(place))
    assert console.end_of(run)["type"] == "CANCELLED"
    assert checkpoint_of(place) == 1
    let_go(place)
    again = console.start("one-stage", stage="source", launcher="kubernetes")
    assert console.end_of(again)["type"] == "COMPLETED"
    assert_each_step_once(place)
    assert toy.text_of(place.root, "source") == "s"


def test_jobs_of_a_cancelled_flow_run_are_ended_when_the_flow_could_not(
    place: Place, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "CANCELLED_GRACE_S", 0.0)
    hold(place)
    settings = Settings(namespace=place.namespace)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        flow_run = asyncio.run(a_flow_run(Running()))
        process = start(place, "source", HEADRACE_FLOW_RUN=flow_run)
        wait_for(lambda: running_pod(place))
        process.kill()
        process.communicate()
        assert asyncio.run(reaper.reap(connect(), settings, place.root, {})) == []
        (row,) = rows(connect(), place.namespace)
        assert (row.stage, row.state, row.nodes, row.flow_run) == (
            "source", "running", "dev-1", flow_run,
        )  # fmt: skip
        asyncio.run(set_state(flow_run, Cancelled()))
        other = place.root.with_name("other")  # whoever serves another project on the same Prefect
        assert asyncio.run(reaper.reap(connect(), settings, other, {})) == []
        (name,) = asyncio.run(reaper.reap(connect(), settings, place.root, {}))
    assert name.startswith("source-")
    assert jobs(place) == []


def test_jobs_of_flow_runs_that_another_server_knows_are_left_alone(
    place: Place, prefect_api: str
) -> None:
    hold(place)
    process = start(place, "source", HEADRACE_FLOW_RUN=str(uuid.uuid4()))
    wait_for(lambda: running_pod(place))
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        settings = Settings(namespace=place.namespace, keep_s=0.001)
        assert asyncio.run(reaper.reap(connect(), settings, place.root, {})) == []
    let_go(place)
    process.communicate(timeout=240)
    assert outcome_of(place, "source")["kind"] == "ok"


async def a_flow_run(state: object) -> str:
    async with get_client() as client:
        run = await client.create_flow_run(pipeline, state=state)  # type: ignore[arg-type]
        return str(run.id)


async def set_state(flow_run: str, state: object) -> None:
    async with get_client() as client:
        await client.set_flow_run_state(uuid.UUID(flow_run), state, force=True)  # type: ignore[arg-type]
