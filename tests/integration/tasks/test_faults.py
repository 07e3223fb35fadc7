"""What goes wrong around a stage: one clear line or silent recovery, and nothing is lost."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import DataError, InfraError, StageError, UserError
from components.section import parse_yaml, read_yaml
from tasks.dvc import reproduce
from tests.integration.tasks import toy
from tests.integration.tasks.disks import (
    Disk,
    enter_namespace,
    make_read_only,
    make_writable,
    unmount,
)

BIG_OUTPUT = """

small = run
def run(params, io, sink):
    (io.out / "big").write_bytes(bytes(500_000))
    return small(params, io, sink)
"""


@pytest.fixture
def disks(project: Path) -> Iterator[None]:
    """The right to mount below the project."""
    enter_namespace()
    yield
    unmount(project)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("HEADRACE_", "MLFLOW_", "PREFECT_", "DVC_")):
            monkeypatch.delenv(name)


def run(project: Path, stage: str) -> list[str]:
    """What DVC and the stage print; the mirror is left out."""
    said: list[str] = []
    reproduce(project, stage, "no flow", say=said.append)
    return said


def refused(project: Path, stage: str, kind: type[StageError]) -> str:
    """The error that `stage` ends with, of that kind and one line long; nothing was recorded."""
    lock = (project / "dvc.lock").read_bytes()
    with pytest.raises(kind) as caught:
        run(project, stage)
    assert "\n" not in caught.value.line
    assert caught.value.hint
    assert (project / "dvc.lock").read_bytes() == lock
    return caught.value.message


def computed(said: list[str]) -> bool:
    return any("2/2 steps" in line for line in said)


@pytest.mark.usefixtures("disks")
class TestDisk:
    def test_a_disk_that_an_output_fills_is_one_line_and_the_next_run_finishes(
        self, project: Path
    ) -> None:
        disk = Disk(project / "runs", 400)
        toy.add_code(project, "left", BIG_OUTPUT)
        assert refused(project, "left", InfraError).startswith(
            f"No space left on device: {project}/runs/left/"
        )
        assert toy.text_of(project, "left") == "sl"
        disk.grow()
        assert computed(run(project, "left"))
        assert (project / "artifacts" / "left" / "big").stat().st_size == 500_000

    def test_a_disk_without_room_for_the_outcome_is_the_same_line(self, project: Path) -> None:
        disk = Disk(project / "runs", 400)
        toy.set_param(project, "left", text="N")
        disk.fill()
        assert refused(project, "left", InfraError).startswith(
            f"No space left on device: {project}/runs/left/"
        )
        assert toy.text_of(project, "left") == "sl"
        disk.grow()
        assert computed(run(project, "left"))
        assert toy.text_of(project, "left") == "sN"

    def test_a_disk_that_fills_while_publishing_keeps_the_last_good_output_and_the_new_one(
        self, project: Path
    ) -> None:
        disk = Disk(project / "artifacts", 100)
        toy.add_code(project, "left", BIG_OUTPUT)
        assert (
            refused(project, "left", InfraError)
            == f"No space left on device: {project}/artifacts/left"
        )
        assert toy.text_of(project, "left") == "sl"
        assert [path.name for path in (project / "artifacts").glob(".*")] == []
        disk.grow()
        assert not computed(run(project, "left"))
        assert (project / "artifacts" / "left" / "big").stat().st_size == 500_000

    def test_a_full_cache_of_dvc_costs_no_second_computation(self, project: Path) -> None:
        disk = Disk(project / ".dvc" / "cache", 400)
        toy.set_param(project, "left", text="C")
        disk.fill()
        assert "left: DVC: No space left on device" in refused(project, "left", InfraError)
        disk.grow()
        assert not computed(run(project, "left"))
        assert toy.text_of(project, "left") == "sC"

    @pytest.mark.parametrize("folder", ["runs", "artifacts", ".dvc/cache"])
    def test_a_folder_that_is_not_writable_is_named_and_no_good_output_is_lost(
        self, project: Path, folder: str
    ) -> None:
        toy.set_param(project, "left", text="R")
        make_read_only(project / folder)
        message = refused(project, "left", InfraError)
        assert "Read-only file system" in message
        assert f"{project / folder}" in message
        assert toy.text_of(project, "left") in ("sl", "sR")
        make_writable(project / folder)
        run(project, "left")
        assert toy.text_of(project, "left") == "sR"

    def test_a_flow_on_a_full_disk_is_one_line_before_anything_starts(self, project: Path) -> None:
        (project / ".headrace").mkdir(exist_ok=True)
        Disk(project / ".headrace", 100)
        done = toy.run(project, sys.executable, "-m", "tasks.cli", "stage", "left", check=False)
        assert done.returncode == 75
        assert done.stdout.splitlines() == [
            f"infra error: No space left on device: {project}/.headrace",
            "free some there (`df -h` says how full it is) and run it again",
        ]


def test_a_log_on_a_full_disk_ends_no_stage(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from components.metrics import JsonLinesSink\n"
        f"sink = JsonLinesSink(pathlib.Path({str(tmp_path / 'metrics.jsonl')!r}), 'left')\n"
        "sink.metrics({'loss': 1.0}, 1); sink.progress(1, 1, 'steps'); sink.info('a line')\n"
        f"pathlib.Path({str(tmp_path / 'end')!r}).touch()\n"
    )
    toy.run(toy.ROOT, "sh", "-c", f'{sys.executable} -c "$0" > /dev/full', script, check=False)
    assert (tmp_path / "end").exists()


def test_prefect_being_away_is_one_line_without_its_password(project: Path) -> None:
    done = toy.run(
        project, sys.executable, "-m", "tasks.cli", "stage", "left", check=False,
        PREFECT_API_URL="http://me:planted-password@127.0.0.1:9/api",
    )  # fmt: skip
    assert done.returncode == 75
    assert done.stdout.splitlines() == [
        "infra error: Prefect at http://127.0.0.1:9/api does not answer: "
        "[Errno 111] Connection refused",
        "start it (`headrace up` starts one here), or unset PREFECT_API_URL for a temporary one",
    ]


@pytest.mark.parametrize(
    "left_behind",
    [
        "",
        "{",
        '{"left": {"write": {}}}',
        '{"write": {"ROOT/artifacts/left": {"pid": 4194305, "cmd": "dvc repro"}}, "read": {}}',
    ],
)
def test_a_lock_that_dvc_left_behind_holds_up_nothing(project: Path, left_behind: str) -> None:
    text = left_behind.replace("ROOT", str(project))
    (project / ".dvc" / "tmp" / "rwlock").write_text(text)
    (project / ".dvc" / "tmp" / "lock").write_text("")
    toy.set_param(project, "left", text="L")
    run(project, "left")
    assert toy.text_of(project, "left") == "sL"


@pytest.mark.parametrize("last_word", ["", "stages:", "outs:", "size:"])
def test_a_dvc_lock_that_was_cut_short_costs_no_stage_a_run(project: Path, last_word: str) -> None:
    toy.run(project, "git", "rm", "-q", "--cached", "dvc.lock")
    toy.run(project, "git", "commit", "-qm", "Keep no lock")
    lock = project / "dvc.lock"
    whole = lock.read_text()
    cut = whole[: whole.find(last_word) + len(last_word)]
    lock.write_text(cut)
    said = run(project, "source")
    assert any(line.startswith("dvc.lock was cut short: DVC makes it again") for line in said)
    assert (project / ".dvc" / "tmp" / "dvc.lock.broken").read_text() == cut
    assert not any(computed(run(project, stage)) for stage in toy.STAGES)
    assert read_yaml(lock)["stages"] == parse_yaml(whole, "whole")["stages"]


def test_in_place_of_a_broken_dvc_lock_gits_is_taken_if_it_has_one(project: Path) -> None:
    lock = project / "dvc.lock"
    whole = lock.read_text()
    lock.write_text("")
    assert any("git's is taken" in line for line in run(project, "left"))
    assert lock.read_text() == whole


def test_a_dvc_lock_with_a_conflict_is_left_to_a_person(project: Path) -> None:
    lock = project / "dvc.lock"
    conflict = f"<<<<<<< ours\n{lock.read_text()}"
    lock.write_text(conflict)
    with pytest.raises(StageError, match=r"dvc\.lock"):
        run(project, "left")
    assert lock.read_text() == conflict


def test_dvc_changes_its_lock_by_rename_alone(project: Path, tmp_path: Path) -> None:
    """A hard link sees what is written in place."""
    lock = project / "dvc.lock"
    whole = lock.read_text()
    os.link(lock, tmp_path / "link")
    toy.set_param(project, "left", text="R")
    run(project, "left")
    assert (tmp_path / "link").read_text() == whole != lock.read_text()


def in_cache(project: Path, digest: str) -> Path:
    return project / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]


def damage_cache(project: Path, stage: str, what: str) -> None:
    """As a failing disk would: the file keeps its mode, which DVC goes by."""
    outs = read_yaml(project / "dvc.lock")["stages"][stage]["outs"]
    path = in_cache(
        project, next(out["md5"] for out in outs if out["path"] == f"artifacts/{stage}")
    )
    if what != "list":
        path = in_cache(project, json.loads(path.read_text())[0]["md5"])
    path.chmod(0o644)
    path.write_bytes(b"XX" if what == "bytes" else path.read_bytes()[:-1])
    path.chmod(0o444)


@pytest.mark.parametrize("what", ["bytes", "cut short", "list"])
def test_a_damaged_file_in_dvcs_cache_is_never_handed_out(project: Path, what: str) -> None:
    damage_cache(project, "left", what)
    shutil.rmtree(project / "artifacts" / "left")
    run(project, "left")
    assert toy.text_of(project, "left") == "sl"
    shutil.rmtree(project / "artifacts" / "left")
    assert not computed(run(project, "left"))  # the cache is whole again
    assert toy.text_of(project, "left") == "sl"


def test_what_was_checked_out_from_a_damaged_cache_is_refused_by_its_reader_and_made_again(
    project: Path,
) -> None:
    damage_cache(project, "left", "bytes")
    shutil.rmtree(project / "artifacts" / "left")
    toy.dvc(project, "checkout")
    assert toy.text_of(project, "left") == "XX"
    toy.set_param(project, "join", text="J")
    assert (
        refused(project, "join", DataError)
        == "join: artifacts/left is not what left put out by dvc.lock: cut short or changed"
    )
    assert toy.text_of(project, "join") == "slsrj"
    assert computed(run(project, "left"))
    run(project, "join")
    assert toy.text_of(project, "join") == "slsrJ"


def test_a_failed_stage_is_not_given_damaged_files_as_its_last_good_output(project: Path) -> None:
    damage_cache(project, "left", "bytes")
    toy.set_param(project, "left", fate="user")
    assert refused(project, "left", UserError) == "the number is wrong"
    assert not (project / "artifacts" / "left").exists()
    assert (project / "reports" / "left.json").exists()
    toy.set_param(project, "left", fate="ok")
    run(project, "left")
    assert toy.text_of(project, "left") == "sl"


def test_an_artifact_cut_short_is_refused_by_its_reader_and_put_right_by_its_stage(
    project: Path,
) -> None:
    (project / "artifacts" / "left" / "text").write_text("s")
    assert "artifacts/left is not what left put out" in refused(project, "join", DataError)
    assert toy.text_of(project, "join") == "slsrj"
    run(project, "left")
    assert toy.text_of(project, "left") == "sl"
    assert not computed(run(project, "join"))


CLOCK = """
import os, time
real, begun = time.time, time.monotonic()
def jumping():
    "Of a process: an hour before or after the others', and back by a day after a moment."
    late = 86400 if time.monotonic() - begun > 0.5 else 0
    return real() + (3600 if os.getpid() % 2 else -3600) - late
time.time = jumping
"""


def test_a_clock_that_jumps_changes_no_order_and_no_duration(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'clock'}{os.pathsep}{path}")
    toy.set_param(project, "left", text="T", fate='"infra once"', step_s=0.6)
    with pytest.raises(InfraError, match="the store was away"):
        run(project, "left")
    assert computed(run(project, "left"))
    key = json.loads((project / "runs" / "left" / "latest.json").read_text())["key"]
    ended = json.loads((project / "runs" / "left" / key / "outcome.json").read_text())
    assert (ended["kind"], ended["attempt"]) == ("ok", 2)
    assert 1.2 <= ended["elapsed_s"] < 60
    assert not any("Running stage" in line for line in run(project, "left"))
    assert toy.text_of(project, "left") == "sT"
