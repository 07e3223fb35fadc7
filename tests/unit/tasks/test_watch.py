"""What reaches a run's page although Prefect's server refuses once, and which run is linked."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from tasks import outcome, watch
from tasks.run_dir import Latest, RunDir, write_latest
from tasks.watch import link_to_mlflow, run_url

NOTE = {"tracking_uri": "http://m", "run_id": "r", "experiment_id": "1", "begun_at": 5.5}


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://p/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m")


def refuses(
    num_times: int, taken: list[Any], is_over: threading.Event | None = None
) -> Callable[..., Any]:
    """As a server that is busy at first, with what it took and how often a call would be retried.

    `is_over` is set when it refuses for the last time.
    """
    left = [None] * num_times

    def create(*words: Any, **named: Any) -> Any:
        if left:
            left.pop()
            if not left and is_over is not None:
                is_over.set()
            raise RuntimeError("503")
        taken.append((words, named, PREFECT_CLIENT_MAX_RETRIES.value()))
        return uuid4()

    return create


@pytest.mark.parametrize(("begun_at", "is_found"), [(None, True), (5.5, True), (9.0, False)])
def test_a_note_of_an_earlier_computation_is_no_link(
    tmp_path: Path, begun_at: float | None, is_found: bool
) -> None:
    outcome.write_json(tmp_path / "mirror.json", NOTE)
    url = run_url(tmp_path / "mirror.json", begun_at)
    assert url == ("http://m/#/experiments/1/runs/r" if is_found else None)


def test_a_link_that_was_refused_is_not_called_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome.write_json(tmp_path / "mirror.json", NOTE)
    taken: list[Any] = []
    monkeypatch.setattr(watch, "create_link_artifact", refuses(1, taken))
    made = [link_to_mlflow(tmp_path / "mirror.json", "left") for _ in range(2)]
    assert made == [False, True]
    assert [words for words, *_ in taken] == [("http://m/#/experiments/1/runs/r",)]


def test_the_last_progress_is_shown_although_it_was_refused_and_the_new_run_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.05)
    follower = watch._Follower(tmp_path, "left")
    run = RunDir(tmp_path, "left", "k")
    run.path.mkdir(parents=True)
    outcome.write_json(run.path / "request.json", {"begun_at": 9.0, "requested_at": 9.5})
    outcome.write_json(run.path / "mirror.json", NOTE)
    progress = {"done": 2, "total": 2, "unit": "steps", "left_s": 0.0}
    (run.path / "metrics.jsonl").write_text(json.dumps({"at": 1.0, "progress": progress}) + "\n")
    write_latest(tmp_path, "left", Latest("k"))
    shown: list[Any] = []
    links: list[Any] = []
    refused = threading.Event()
    monkeypatch.setattr(watch, "create_progress_artifact", refuses(3, shown, refused))
    monkeypatch.setattr(watch, "create_link_artifact", refuses(0, links))
    stopped = threading.Event()
    thread = threading.Thread(target=follower.follow, args=(stopped,))
    thread.start()
    assert refused.wait(60)
    assert links == []
    outcome.write_json(run.path / "mirror.json", NOTE | {"begun_at": 9.0})
    stopped.set()
    thread.join()
    assert [words for words, *_ in shown] == [(100.0,)]
    assert [words for words, *_ in links] == [("http://m/#/experiments/1/runs/r",)]


def test_a_table_of_results_is_tried_more_than_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifacts" / "evaluate").mkdir(parents=True)
    (tmp_path / "artifacts" / "evaluate" / "results.md").write_text("table")
    taken: list[Any] = []
    monkeypatch.setattr(watch, "create_markdown_artifact", refuses(0, taken))
    watch.show_result(tmp_path)
    assert [(words, retries) for words, _, retries in taken] == [(("table",), 2)]
