"""Where a gang meets, and how the words of its ranks become one; its sums are in integration."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from components.errors import InfraError, UserError
from components.preflight import gang
from components.preflight.children import Ended, run_children
from components.preflight.dear_checks import check_all_reduce
from components.preflight.gang import (
    Gang,
    Meeting,
    RankFigure,
    figure_of,
    meet_and_sum,
    meeting_of,
    together,
)
from components.preflight.readings import AllReduce
from tests.unit.preflight.recordings.made import THRESHOLDS

PET = {
    "PET_NNODES": "4",
    "PET_NODE_RANK": "2",
    "PET_MASTER_ADDR": "gang-0.gang",
    "PET_MASTER_PORT": "29500",
}


def test_a_gang_is_read_from_torchruns_variables() -> None:
    assert meeting_of(PET).gang(0) == Gang(4, 2, "gang-0.gang", 29500)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"PET_MASTER_ADDR": None}, "PET_MASTER_ADDR is not set"),
        ({"PET_NNODES": "1:4"}, "no number"),
        ({"PET_NODE_RANK": "4"}, "PET_NODE_RANK 4 of 4 nodes"),
    ],
)
def test_a_wrong_variable_is_the_users_error(changes: dict[str, str | None], told: str) -> None:
    environment = {name: value for name, value in (PET | changes).items() if value is not None}
    with pytest.raises(UserError, match=told):
        meeting_of(environment)


def test_a_gang_that_kueue_shrank_is_as_large_as_the_launchers_list(tmp_path: Path) -> None:
    members = tmp_path / "gang.json"
    where = {"PET_MASTER_ADDR": "gang-0.gang", "PET_MASTER_PORT": "1", "HEADRACE_POD": "gang-1-x"}
    meeting = meeting_of(where, members)
    for text in (None, "[", '{"gang-1-x": 1}', '["gang-0-old", "gang-1-old"]'):
        if text is not None:
            members.write_text(text)
        assert meeting.gang(timeout_s=0) is None
    threading.Timer(0.1, members.write_text, ['["gang-0-x", "gang-1-x"]']).start()
    peer = Meeting("gang-0.gang", 1, None, None, members, "gang-0-x")
    threading.Timer(0.2, peer.gang, [0.0]).start()
    assert meeting.gang(timeout_s=30) == Gang(2, 1, "gang-0.gang", 1)


def test_a_gang_waits_for_a_pod_that_is_known_and_has_not_come_so_far(tmp_path: Path) -> None:
    """Its node still pulls the image, or makes the checks that come before."""
    members = tmp_path / "gang.json"
    members.write_text('["gang-0-x", "gang-1-x"]')
    first, second = (
        Meeting("gang-0.gang", 1, None, None, members, f"gang-{i}-x") for i in range(2)
    )
    assert first.gang(timeout_s=0) is None
    assert second.gang(timeout_s=0) == Gang(2, 1, "gang-0.gang", 1)
    assert first.gang(timeout_s=0) == Gang(2, 0, "gang-0.gang", 1)


def test_a_pod_that_cannot_say_that_it_is_there_says_why(tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "gang.json"
    meeting = Meeting("gang-0.gang", 1, None, None, nowhere, "gang-1-x")
    with pytest.raises(InfraError, match="none: No such file or directory"):
        meeting.gang(timeout_s=0)


def test_a_gang_whose_pods_never_all_came_has_no_sum_and_nobody_is_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gang, "GANG_WAIT_S", 0.0)
    meeting = Meeting("gang-0.gang", 1, None, None, tmp_path / "none", "gang-1-x")
    limits = THRESHOLDS.skus["cpu"].all_reduce
    (finding,) = check_all_reduce(meet_and_sum(meeting, 0, limits), limits)
    assert finding.status == "inconclusive"
    assert finding.message == (
        "gang: not all pods were there within 0 s; that tells nothing about this node"
    )


def test_a_pod_that_is_its_whole_gang_is_not_judged_by_a_sum_with_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An elastic gang that was admitted with one pod of one GPU."""
    started: list[str] = []
    monkeypatch.setattr(gang, "run_children", lambda *_: started.append("a rank") or [])
    members = tmp_path / "gang.json"
    members.write_text('["gang-0-x"]')
    meeting = Meeting("gang-0.gang", 1, None, None, members, "gang-0-x")
    limits = THRESHOLDS.skus["h100-sxm"].all_reduce
    summed = meet_and_sum(meeting, 1, limits)
    assert (summed.num_ranks, summed.bus_gb_per_s, started) == (1, None, [])
    for figure in (summed, replace(summed, bus_gb_per_s=0.0)):
        (finding,) = check_all_reduce(figure, limits)
        assert (finding.status, finding.value) == ("skipped", None)
        assert finding.message == "one rank alone has nobody to sum with"


def test_the_slowest_rank_sets_the_speed_and_wrong_sums_add_up() -> None:
    figures = [RankFigure(30.0, 1, 2.0), RankFigure(20.0, 2, 9.0)]
    assert together(figures, 4, 2) == AllReduce(4, 2, 20.0, 3, 2.0)


def test_one_silent_rank_leaves_no_speed() -> None:
    lost = together([RankFigure(30.0), RankFigure(lost="gone")], 4, 2)
    assert (lost.bus_gb_per_s, lost.timed_out, lost.fault) == (None, "gone", None)


@pytest.mark.parametrize(
    ("ended", "figure"),
    [
        (Ended('{"bus_gb_per_s": 3.0}', "", 0), RankFigure(3.0)),
        (Ended('{"bus_gb_per_s": 3.0}', "teardown failed", 1), RankFigure(3.0)),
        (Ended("", "", None), RankFigure(lost="the others fell silent")),
        (Ended("", "CUDA error", -6), RankFigure(fault="a rank ended with -6: CUDA error")),
        (Ended("{}x", "", 0), RankFigure(fault="a rank said '{}x'")),
    ],
)
def test_how_a_rank_ended_is_what_it_says(ended: Ended, figure: RankFigure) -> None:
    assert figure_of(ended) == figure


def test_children_say_their_last_json_line_or_how_they_ended(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("children")
    (folder / "child.py").write_text(
        "import sys, time\n"
        "print('{\"first\": 1}'); print('{\"last\": 2}'); print('a log line')\n"
        "print('alas', file=sys.stderr, flush=True)\n"
        "time.sleep(float(sys.argv[2])); sys.exit(int(sys.argv[1]))\n"
    )
    environment = {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
    assert (
        run_children("child", [["0", "0"], ["0", "0.1"]], 60, environment)
        == [Ended('{"last": 2}', "alas", 0)] * 2
    )
    (late,) = run_children("child", [["0", "60"]], 0.05, environment)
    assert late.code is None
    (failed,) = run_children("child", [["3", "0"]], 60, environment)
    assert failed == Ended('{"last": 2}', "alas", 3)


def test_a_child_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "import os, sys, time; from components.preflight.children import end_with_parent\n"
        "end_with_parent(); open(sys.argv[1], 'w').write(f'{os.getpid()}.'); time.sleep(60)\n"
    )
    told = tmp_path / "pid"
    code = (
        f"from components.preflight.children import run_children as r; r('child', [['{told}']], 60)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    wait_for(lambda: told.exists() and told.read_text().endswith("."))
    child = int(told.read_text()[:-1])
    assert is_alive(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(child))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)
