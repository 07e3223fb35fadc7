"""A team's servers with PostgreSQL behind them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks import journal
from tests.integration.tasks import toy
from tests.integration.tasks.consoles import Console
from tests.integration.tasks.postgres import Postgres, postgres
from tests.integration.tasks.processes import wait_for, working_in

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        for database in ("prefect", "mlflow", "journal"):
            running.ask("postgres", f"CREATE DATABASE {database}")
        yield running


def test_a_run_from_the_form_is_in_both_databases_and_no_password_anywhere(
    server: Postgres, template: Path, tmp_path: Path
) -> None:
    console = Console(toy.copy(template, tmp_path / "project"))
    for path in console.project.glob("mlflow.db*"):
        path.unlink()
    said = console.headrace(
        "up",
        PREFECT_API_DATABASE_CONNECTION_URL=server.url("prefect", "asyncpg"),
        MLFLOW_BACKEND_STORE_URI=server.url("mlflow", "psycopg2"),
    )
    assert said.returncode == 0, said.stdout
    try:
        toy.set_param(console.project, "left", text="P")
        run = console.start("pipeline")
        assert console.end_of(run)["type"] == "COMPLETED", console.state(run)
        assert server.ask("prefect", "SELECT id::text, state_type FROM flow_run") == [
            (run, "COMPLETED")
        ]
        states = console.tasks_of(run)
        assert states == {
            "source": "Cached", "left": "Completed", "right": "Cached", "join": "Completed",
        }  # fmt: skip
        assert dict(server.ask("prefect", "SELECT name, state_name FROM task_run")) == states
        wait_for(lambda: mirrored_stages(server, run) == {"left", "join"})
        assert not any(server.password in line for line in working_in(console.project).values())
    finally:
        console.headrace("down")
    assert not list(console.project.glob("mlflow.db*"))
    toy.run(console.project, "flock", "runs/.mirror.lock", "true")
    for path in console.project.rglob("*"):
        if path.is_file():
            assert server.password.encode() not in path.read_bytes(), path


def mirrored_stages(server: Postgres, flow_run: str) -> set[object]:
    query = f"""
        SELECT stage.value FROM tags stage JOIN tags flow USING (run_uuid)
        WHERE stage.key = 'headrace.stage' AND flow.key = 'prefect.flow_run_id'
        AND flow.value = '{flow_run}'"""
    return {value for (value,) in server.ask("mlflow", query)}


def test_of_eight_who_write_the_same_entry_of_the_journal_one_wins(server: Postgres) -> None:
    uri = server.url("journal", "psycopg2")
    journal.read(MlflowClient(uri))  # makes the tables and the run
    meet = threading.Barrier(8, timeout=60)

    def write(who: str) -> list[int]:
        """The positions it won."""
        client, won = MlflowClient(uri), []
        for position in range(1, 11):
            entry = journal.Entry("promote", "", "1", who, "", "now", f"{who} {position}")
            meet.wait()
            if journal.append(client, entry, position):
                won.append(position)
        return won

    names = [f"w{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = dict(zip(names, pool.map(write, names), strict=True))
    assert sorted(position for positions in won.values() for position in positions) == list(
        range(1, 11)
    )
    for position, entry in enumerate(journal.read(MlflowClient(uri)), start=1):
        assert position in won[entry.who]
