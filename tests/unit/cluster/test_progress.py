"""What a launcher tells of a Job, told once, also by the next launcher."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cluster.progress import MAX_HISTORY, JobProgress, read
from tasks.cluster.situation import Situation
from tasks.run_dir import RunDir
from tasks.watch import job_page
from tests.unit.cluster.runs import run_folder, said


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return run_folder(tmp_path)


def history(run: RunDir) -> list[str]:
    return [text for _, text in read(run.path)["history"]]


Captured = pytest.CaptureFixture[str]


def test_a_log_is_told_once_by_one_launcher_and_the_next(run: RunDir, capsys: Captured) -> None:
    first = JobProgress(run, "job")
    first.relay()  # no log yet
    run.log.write_text("one\n")
    first.relay()
    first.relay()
    run.log.write_text("one\ntwo\n")
    JobProgress(run, "job").relay()
    with run.log.open("a") as file:
        file.write("thr")
    JobProgress(run, "job-of-the-next-attempt").relay()
    assert capsys.readouterr().out == "one\ntwo\nthr"


def test_a_log_that_was_begun_anew_is_told_from_its_beginning(
    run: RunDir, capsys: Captured
) -> None:
    progress = JobProgress(run, "job")
    run.log.write_text("a long first line\n")
    progress.relay()
    run.log.write_text("new\n")
    progress.relay()
    assert capsys.readouterr().out == "a long first line\nnew\n"
    assert read(run.path)["log_bytes"] == 4


def test_a_log_out_of_reach_disturbs_nobody(run: RunDir, capsys: Captured) -> None:
    progress = JobProgress(run, "job")
    run.log.mkdir()  # any error but that it is not there
    progress.relay()
    run.log.rmdir()
    run.log.write_text("then\n")
    progress.relay()
    assert capsys.readouterr().out == "then\n"


@settings(max_examples=20)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=20), max_size=6),
    restarts=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_whatever_a_log_grows_by_it_is_told_whole(
    pieces: list[bytes], restarts: list[bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = run_folder(tmp_path_factory.mktemp("run"))
    progress, shown = JobProgress(run, "job"), io.TextIOWrapper(io.BytesIO())
    for piece, is_restarted in zip(pieces, restarts, strict=False):
        with run.log.open("ab") as file:
            file.write(piece)
        if is_restarted:
            progress = JobProgress(run, "job")
        with redirect_stdout(shown):
            progress.relay()
    assert shown.buffer.getvalue() == b"".join(pieces)  # type: ignore[attr-defined]


def test_a_state_is_told_when_it_changes_also_by_the_next_launcher(
    run: RunDir, capsys: Captured
) -> None:
    for _ in range(2):
        progress = JobProgress(run, "job")
        progress.show(Situation("queued", "no room"))
        progress.show(Situation("queued", "no room"))
    progress.show(Situation("running", nodes=("dev-1",)))
    JobProgress(run, "job-2").show(Situation("running", nodes=("dev-1",)))
    assert history(run) == ["queued: no room", "running on dev-1", "running on dev-1"]
    assert capsys.readouterr().out.splitlines() == [f"pretrain: {text}" for text in history(run)]


def test_a_warning_is_told_once_for_each_job(run: RunDir) -> None:
    for job in ("job", "job", "job-2"):
        JobProgress(run, job).event("uid", "FailedScheduling", "no node\nmore")
    JobProgress(run, "job-2").event("uid-2", "BackOff", "")
    assert history(run) == ["FailedScheduling: no node"] * 2 + ["BackOff: "]


def test_the_history_keeps_the_newest(run: RunDir) -> None:
    told = {
        "job": "job", "events": [], "log_bytes": 0,
        "history": [[float(i), str(i)] for i in range(MAX_HISTORY)],
    }  # fmt: skip
    (run.path / "job.json").write_text(json.dumps(told))
    progress = JobProgress(run, "job")
    progress.say("newest")
    assert history(run) == [*map(str, range(1, MAX_HISTORY)), "newest"]


def test_the_end_is_told(run: RunDir) -> None:
    JobProgress(run, "job").end(said("ok", 0))
    JobProgress(run, "job").end(said("infra", 75, "the store was away"))
    assert history(run) == ["done in 2 s on dev-1", "infra"]


def test_a_volume_that_takes_no_note_ends_nothing(run: RunDir, capsys: Captured) -> None:
    progress = JobProgress(run, "job")
    (run.path / "job.json").mkdir()
    progress.say("one")
    assert capsys.readouterr().out == "pretrain: one\n"


def test_a_launcher_whose_reader_is_gone_ends_as_it_would_have(run: RunDir) -> None:
    code = (
        "import sys, pathlib\n"
        "from tasks.cluster.progress import JobProgress\n"
        "from tasks.run_dir import RunDir\n"
        "root, stage, key = sys.argv[1:]\n"
        "sys.stdin.readline()\n"
        "progress = JobProgress(RunDir(pathlib.Path(root), stage, key), 'job')\n"
        "progress.say('one'); progress.say('two'); sys.exit(75)\n"
    )
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.root), run.stage, run.key], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, said_last = process.communicate("go\n", timeout=30)
    assert (process.returncode, said_last) == (75, "")
    assert history(run) == ["one", "two"]


def test_a_page_shows_a_jobs_way_the_newest_first_in_utc() -> None:
    page = job_page("pretrain-k-a1", [(0.0, "queued: a|b"), (86400.5, "running on dev-1")])
    assert page.splitlines() == [
        "`pretrain-k-a1`",
        "",
        "| when (UTC) | what |",
        "|---|---|",
        "| 1970-01-02 00:00:00 | running on dev-1 |",
        "| 1970-01-01 00:00:00 | queued: a/b |",
    ]


LINE = st.text(st.characters(exclude_characters="\n"), max_size=20)


@given(st.lists(st.tuples(st.floats(0, 4e9), LINE), max_size=5))
def test_a_page_has_a_row_for_each_line_whatever_it_says(told: list[tuple[float, str]]) -> None:
    rows = job_page("job", told).split("\n")[4:]
    assert len(rows) == len(told)
    assert all(row.count("|") == 3 for row in rows)
