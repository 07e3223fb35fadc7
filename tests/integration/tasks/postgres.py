"""A PostgreSQL server of a test's own, from Debian's package: loopback only, gone at the end."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

from tests.integration.tasks.consoles import free_ports

USER = "headrace"


class Postgres:
    def __init__(self, port: int, password: str) -> None:
        self.port, self.password = port, password

    def url(self, database: str, driver: str) -> str:
        """SQLAlchemy's address; `driver` is psycopg2 or asyncpg."""
        return f"postgresql+{driver}://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def ask(self, database: str, query: str) -> list[tuple[object, ...]]:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname=database
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server with a password; skips the test where PostgreSQL is not installed."""
    programs = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[4])
    )
    if not programs:
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    # The server refuses to run as root; Debian's package has a user for it.
    as_owner = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
    if as_owner:
        shutil.chown(folder, "postgres", "postgres")
    data, programs_folder = folder / "data", programs[-1].parent
    server = Postgres(free_ports(1)[0], secrets.token_urlsafe(12))
    password_file = folder / "password"
    password_file.write_text(server.password)
    password_file.chmod(0o644)

    def run(program: str, *arguments: str) -> None:
        command = [*as_owner, str(programs_folder / program), "-D", str(data), *arguments]
        done = subprocess.run(
            command, cwd=folder, text=True, stdin=subprocess.DEVNULL, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    try:
        run(
            "initdb", "-U", USER, "--auth=scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8",
            "--no-sync",
        )  # fmt: skip
        options = (
            f"-p {server.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' "
            "-c fsync=off"
        )
        try:
            run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
            yield server
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
