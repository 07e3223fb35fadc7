"""Whether a flow's process is there: by the kernel of its machine, or by its lock from another."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks import flow_record
from tasks.flow_record import FlowRecord, is_gone, record_path

FLOW = """
import sys, subprocess
from pathlib import Path
from tasks import flow_record
with flow_record.recorded(Path(sys.argv[1]), "f"):
    subprocess.Popen(["sleep", "20"], start_new_session=True)
    print("begun", flush=True)
    sys.stdin.read(1)
print("ended", flush=True)
sys.stdin.read(1)
"""


@contextmanager
def flow(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process with a record, and a child that outlives it; it goes on by a character."""
    with subprocess.Popen(
        [sys.executable, "-c", FLOW, str(home)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield process
        finally:
            process.kill()


def seen_from_elsewhere(home: Path) -> tuple[Path, FlowRecord]:
    """The record as of another machine, whose processes cannot be asked for."""
    path = record_path(home, "f")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"node": "elsewhere", "ticks": 1}))
    record = flow_record.read(path)
    assert record is not None
    return path, record


def test_a_flow_on_another_machine_is_there_until_it_is_killed_though_its_child_goes_on(
    tmp_path: Path,
) -> None:
    with flow(tmp_path) as process:
        seen = seen_from_elsewhere(tmp_path)
        assert not is_gone(*seen)
        process.send_signal(signal.SIGSTOP)
        assert not is_gone(*seen)
        assert not flow_record.has_ended(seen[0])
        process.kill()
        process.wait()
        assert is_gone(*seen)
        assert flow_record.has_ended(seen[0])


def test_a_flow_that_has_ended_is_there_while_its_process_may_yet_tell_prefect(
    tmp_path: Path,
) -> None:
    with flow(tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("x")
        process.stdin.flush()
        assert process.stdout.readline() == "ended\n"
        path, record = seen_from_elsewhere(tmp_path)
        assert flow_record.is_over(path, record)
        assert not is_gone(path, record)


def test_a_record_without_a_lock_of_another_machine_says_nothing(tmp_path: Path) -> None:
    record = FlowRecord("f", 1.0, "elsewhere", os.getpid(), 1)
    assert not is_gone(record_path(tmp_path, "f"), record)


@pytest.mark.parametrize("ended_at", [None, 7.0])
def test_who_was_told_of_an_end_is_kept_without_changing_when_it_was(
    tmp_path: Path, ended_at: float | None
) -> None:
    path = record_path(tmp_path, "f")
    path.parent.mkdir(parents=True)
    record = FlowRecord("f", 1.0, "elsewhere", 1, 1, ended_at=ended_at)
    path.write_text(json.dumps(vars(record)))
    os.utime(path, (107, 107))
    flow_record.tell(path, record, "http://here/api")
    kept = flow_record.read(path)
    assert kept == record
    assert (kept.told, path.stat().st_mtime) == ("http://here/api", 107)
    assert is_gone(path, kept)
