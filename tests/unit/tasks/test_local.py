import signal
import sys
from pathlib import Path

import pytest

from tasks.local import _verdict, supervise
from tasks.outcome import Outcome
from tasks.process import oom_kills
from tasks.run_dir import RunDir

VANISHED = "a worker process vanished"


def verdict(folder: Path, *, kind: str = "", code: int, oom: bool, signalled: bool) -> str:
    said = Outcome("left", "k", kind, code, VANISHED, "", "here", 1, 0.0, 0.0, 0.0)
    run = RunDir(folder, "left", "k", folder)
    return " ".join(_verdict(run, said if kind else None, code, oom, signalled)[:2])


def test_a_failure_that_the_kernel_caused_for_memory_is_the_users_and_is_not_retried(
    tmp_path: Path,
) -> None:
    assert verdict(tmp_path, kind="infra", code=75, oom=True, signalled=False) == (
        f"user left ran out of memory; the kernel ended a process: {VANISHED}"
    )
    assert verdict(tmp_path, code=-signal.SIGKILL, oom=True, signalled=False) == (
        "user left ran out of memory; the kernel ended it"
    )


@pytest.mark.parametrize(
    ("kind", "code", "oom", "signalled"),
    [("infra", 75, False, False), ("infra", 75, True, True), ("data", 65, True, False)],
)
def test_any_other_failure_keeps_the_word_of_the_stage(
    tmp_path: Path, kind: str, code: int, oom: bool, signalled: bool
) -> None:
    said = verdict(tmp_path, kind=kind, code=code, oom=oom, signalled=signalled)
    assert said == f"{kind} {VANISHED}"


TORCHRUN = """
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
=====================================================
tasks.pod FAILED
-----------------------------------------------------
Failures:
[1]:
  time      : 2026-11-26_21:46:49
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : 75 (pid: 9620)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
-----------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-26_21:46:48
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : %d (pid: 9619)%s
  error_file: <N/A>
  traceback : ...
=====================================================
"""
"""Its last words, before it exits with 1."""


@pytest.mark.parametrize(
    ("report", "kind", "message"),
    [
        (TORCHRUN % (-9, "  (SIGKILL)"), "infra", "left was ended by SIGKILL"),
        (TORCHRUN % (-11, "  (SIGSEGV)"), "bug", "left crashed with SIGSEGV"),
        (TORCHRUN % (75, ""), "infra", "left ended with exit code 75"),
        ("ImportError", "bug", "left ended with exit code 1 and without a word"),
    ],
)
def test_where_no_rank_left_a_word_it_counts_how_the_first_one_ended(
    tmp_path: Path, report: str, kind: str, message: str
) -> None:
    (tmp_path / "log.txt").write_text(TORCHRUN % (70, ""))  # of the attempt before
    program = "import sys; sys.stderr.write(sys.argv[1]); sys.exit(1)"
    run = RunDir(tmp_path, "left", "k", tmp_path)
    ended = supervise(run, [sys.executable, "-c", program, report], 1.0)
    assert (ended.kind, ended.message) == (kind, message)


def test_a_neighbour_that_ran_out_of_memory_is_not_counted_where_the_group_counts_its_own(
    tmp_path: Path,
) -> None:
    for name, text in (
        ("proc/vmstat", "pgfault 9\noom_kill 7\n"),
        ("proc/self/cgroup", "1:cpu:/x\n0::/pods/one\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(tmp_path) == 7
    events = tmp_path / "sys/fs/cgroup/pods/one/memory.events"
    events.parent.mkdir(parents=True)
    events.write_text("oom 2\noom_kill 1\noom_group_kill 0\n")
    assert oom_kills(tmp_path) == 1
