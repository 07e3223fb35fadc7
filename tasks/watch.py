"""What a flow run shows in Prefect's UI while it works: progress, links to MLflow, the result.

Everything here is read from the files below `runs/`, and a server that is away disturbs nothing.
"""

import base64
import contextvars
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from components.contract import Json
from components.metrics import progress_line
from tasks.cluster import progress as job_progress
from tasks.run_dir import latest_at, latest_run, read_request

INTERVAL_S = 2.0
LAST_RETRIES = 2
"""Within 6 seconds, of what is not told again later."""
LOG = logging.getLogger("headrace.watch")


def is_served() -> bool:
    """Whether there is a Prefect server that outlives this process, and so somebody who looks."""
    return "PREFECT_API_URL" in os.environ


@contextmanager
def expendable(num_retries: int = 0) -> Iterator[None]:
    """Tell the server something in the body: one try, for a server that is away may delay nobody."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: num_retries}):
        try:
            yield
        except Exception as error:  # noqa: BLE001  what ails the server must not reach the stage
            LOG.debug("not shown: %s", error)


@contextmanager
def progress_shown(root: Path, stage: str) -> Iterator[None]:
    """Keep a progress artifact up to date with what the stage says of itself, while the body runs.

    And link to the attempt's run in MLflow as soon as there is one: so not for one of a few seconds.
    """
    if not is_served():
        yield
        return
    stopped = threading.Event()
    run = contextvars.copy_context().run  # so that the artifact belongs to this task run
    follower = _Follower(root, stage)
    thread = threading.Thread(target=run, args=(follower.follow, stopped), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class _Follower:
    """Reads the metrics.jsonl of the attempt that starts after it."""

    def __init__(self, root: Path, stage: str) -> None:
        self._root, self._stage = root, stage
        self._before = latest_at(root, stage)
        self._path: Path | None = None
        self._offset = 0
        self._entry: dict[str, Any] | None = None
        """Of the last progress, until it is shown."""
        self._artifact: UUID | None = None
        self._is_linked = False
        self._job_page = ""
        self._job_artifact: UUID | None = None

    def follow(self, stopped: threading.Event) -> None:
        ended = False
        while not ended:
            ended = stopped.wait(INTERVAL_S)
            with expendable(LAST_RETRIES if ended else 0):
                self._entry = self._newest() or self._entry
                if self._entry is not None:
                    self._show(dict(self._entry))
                    self._entry = None
                self._show_job()
                if self._path is not None and not self._is_linked:
                    self._is_linked = self._link(self._path.parent)

    def _link(self, run_dir: Path) -> bool:
        request = read_request(run_dir)
        begun_at = request.get("begun_at") or request.get("requested_at")
        return link_to_mlflow(run_dir / "mirror.json", self._stage, begun_at=begun_at)

    def _newest(self) -> dict[str, Any] | None:
        """The last progress line since the last call."""
        if self._path is None:
            run = latest_run(self._root, self._stage)
            if run is None or latest_at(self._root, self._stage) == self._before:
                return None
            self._path = run / "metrics.jsonl"
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return None
        new = new[: new.rfind(b"\n") + 1]
        self._offset += len(new)
        for line in reversed(new.splitlines()):
            if line.startswith(b'{"at"') and b'"progress"' in line:
                progress: dict[str, Any] = json.loads(line)["progress"]
                return progress
        return None

    def _show_job(self) -> None:
        """Where the stage's Job is and was, if it runs on a cluster: one artifact, kept up to date."""
        run = latest_run(self._root, self._stage)
        told = job_progress.read(run) if run else {}
        if not told or latest_at(self._root, self._stage) == self._before:
            return
        page = job_page(told["job"], told["history"])
        if page == self._job_page:
            return
        text = told["history"][-1][1]
        if self._job_artifact is None:
            key = f"{self._stage.replace('_', '-')}-job"
            self._job_artifact = create_markdown_artifact(page, key=key, description=text)  # type: ignore[assignment]
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(
                    self._job_artifact, ArtifactUpdate(data=page, description=text)
                )
        self._job_page = page

    def _show(self, entry: dict[str, Any]) -> None:
        done, total, unit, left_s = (entry.pop(key) for key in ("done", "total", "unit", "left_s"))
        percent = 100.0 * done / max(total, 1)
        text = progress_line(self._stage, done, total, unit, left_s, entry)
        if self._artifact is None:
            key = f"{self._stage.replace('_', '-')}-progress"
            self._artifact = create_progress_artifact(percent, key=key, description=text)  # type: ignore[assignment]
        else:
            update_progress_artifact(self._artifact, progress=percent, description=text)


def job_page(job: str, history: Sequence[tuple[float, str]]) -> str:
    """A Job's way as a table, the newest first; instants in Unix seconds become UTC."""
    lines = [f"`{job}`", "", "| when (UTC) | what |", "|---|---|"]
    for at, text in reversed(history):
        when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"| {when} | {text.replace('|', '/')} |")
    return "\n".join(lines)


def run_url(note_path: Path, begun_at: Json = None) -> str | None:
    """The page of the MLflow run that a mirror's note names; None if MLflow is no server, or has none.

    None also if the note is of what began at another time than `begun_at` (any, if that is None):
    computed again from the start, it has another run. The note's server has no password in it.
    """
    try:
        note = json.loads(note_path.read_text(encoding="utf-8"))
        server, run_id, experiment_id = (
            str(note[name]) for name in ("tracking_uri", "run_id", "experiment_id")
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if not server.startswith("http") or not run_id:
        return None
    if begun_at is not None and note.get("begun_at") != begun_at:
        return None
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def link_to_mlflow(note_path: Path, name: str, wait_s: float = 0.0, begun_at: Json = None) -> bool:
    """Whether a link to the MLflow run whose mirror's note is at `note_path` is on the run's page.

    Waits so long for the note: the mirror takes seconds to start, and a run may be faster. With
    `begun_at` as in `run_url`.
    """
    if not is_served() or not os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        return False
    deadline = time.monotonic() + wait_s
    url = run_url(note_path, begun_at)
    while url is None and time.monotonic() < deadline:
        time.sleep(0.5)
        url = run_url(note_path, begun_at)
    if url is None:
        return False
    key = f"{name.replace('_', '-')}-mlflow"
    text = f"{name} in MLflow"
    with expendable(LAST_RETRIES if wait_s else 0):
        create_link_artifact(url, link_text=text, key=key, description=text)
        return True
    return False


def show_result(root: Path) -> None:
    """The table and the picture of evaluate, on the flow run's page."""
    folder = root / "artifacts" / "evaluate"
    if not is_served() or not (folder / "results.md").exists():
        return
    text = (folder / "results.md").read_text(encoding="utf-8")
    picture = folder / "results.png"
    page = result_page(text, picture.read_bytes() if picture.exists() else None)
    with expendable(LAST_RETRIES):
        create_markdown_artifact(
            page, key="results", description="base, SFT, DPO and quantized model"
        )


def result_page(text: str, picture: bytes | None) -> str:
    """Markdown with the picture in itself, after the first table; a figure and its error on one line."""
    text = text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    if picture is None:
        return text
    table, heading, rest = text.partition("\n## ")
    image = f"![results](data:image/png;base64,{base64.b64encode(picture).decode()})"
    return f"{table}\n{image}\n{heading}{rest}"
