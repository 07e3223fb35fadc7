"""The data stages on several machines: real processes with one folder, and what kills them.

Pieces are smaller than `small.py`'s, so that there are many; the bytes are compared with those of
the same stage on one machine, which `test_small_chain.py` compares with the recorded ones.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.contract import ON_MANY_MACHINES as STAGES
from components.errors import InfraError
from components.params import load_params
from tests.integration import small
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for

INPUT = {"pretrain": None, "ingest": None, "clean": "ingest", "dedup": "clean", "tokenize": "dedup"}
MAPS = {
    "ingest": {"units": "units.json"},
    "clean": {"cleaned": "rules.json"},
    "dedup": {"fingerprints": "", "inspections": "left.bits"},
    "tokenize": {"encoded": "tokenizer.json"},
}
"""Each stage's maps, and the leader's word before each."""
NUM = 3
SOURCES = ("sagemaker*", "se*", "sn*", "ss*", "st*", "su*", "sy*", "t*")

pytestmark = pytest.mark.timeout(900)
each_stage = pytest.mark.parametrize("stage", STAGES)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Params, and the artifacts of the data stages, each computed by one process alone."""
    folder = tmp_path_factory.mktemp("shares")
    yaml = YAML()
    params = yaml.load(small.ROOT / "params.yaml")
    for key, value in small.SMALLER.items():
        small.set_value(params, key, value)
    (source,) = params["ingest"]["sources"]
    params["ingest"]["sources"] = [
        source | {"name": f"s{number}", "location": f"botocore==1.43.117 {services}/*"}
        for number, services in enumerate(SOURCES)
    ]
    for stage in ("ingest", "clean", "dedup"):
        small.set_value(params, f"{stage}.rows_per_shard", 100)
    yaml.dump(params, folder / "params.yaml")
    for stage in STAGES:
        run = run_folder(folder, stage, "alone")
        with pod(folder, run, stage) as alone:
            assert alone.wait() == 0, log(run)
        shutil.copytree(run / "out", folder / "artifacts" / stage)
    return folder


def run_folder(project: Path, stage: str, name: str, num_workers: int = 1) -> Path:
    """A folder for one attempt, as `tasks.launch` makes it."""
    run = project / "runs" / stage / name
    for part in ("out", "work", "reports"):
        (run / part).mkdir(parents=True)
    params = load_params(project / "params.yaml").model_dump(mode="json")
    request = {
        "key": name,
        "params": {"seed": params["seed"], stage: params[stage]},
        "inputs": [INPUT[stage]] if INPUT[stage] else [],
        "attempt": 1,
        "num_workers": num_workers,
        "cache": str(project / "runs" / stage / "cache"),
    }
    (run / "request.json").write_text(json.dumps(request))
    return run


@contextmanager
def pod(
    project: Path, run: Path, stage: str, index: int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """`tasks.pod` in the project, killed at the end if it still runs."""
    share = [] if index is None else ["--share", f"{index}/{NUM}"]
    with (run / f"log-{index or 0}.txt").open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.pod", stage, str(run), *share],
            cwd=project, env=toy.environment() | {"PYTHONPATH": str(small.ROOT)},
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def log(run: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(run.glob("log-*.txt")))


def pieces(run: Path, name: str) -> list[Path]:
    """What is computed so far of a map."""
    if name == "units":
        counts = run.glob("work/units/*/counts.json")
        return [path for path in counts if not path.parent.suffix]  # a suffix: half a unit
    return list(run.glob(f"work/share/{name}-*.arrows"))


def num_pieces(project: Path, stage: str) -> int:
    """How many a map of the stage has, from what one machine alone left or read."""
    alone = project / "runs" / stage / "alone"
    if stage == "ingest":
        return len(pieces(alone, "units"))
    tables = {
        "clean": ("documents", "conversations", "rated_responses"),
    }.get(stage, ("documents",))
    source = project / "artifacts" / str(INPUT[stage])
    return sum(len(list(source.glob(f"{table}/*/*.parquet"))) for table in tables)


def has_all_pieces(project: Path, run: Path, stage: str, name: str) -> bool:
    return len(pieces(run, name)) == num_pieces(project, stage)


def assert_as_alone(project: Path, run: Path, stage: str) -> None:
    """Every file of the output, the pictures, and the report but for times."""
    alone = project / "runs" / stage / "alone"
    assert files(run / "out") == files(alone / "out")
    assert len(files(run / "out")) > 3
    assert files(run / "reports", "*.png") == files(alone / "reports", "*.png")
    assert report(run) == report(alone)
    assert json.loads((run / "outcome.json").read_text())["kind"] == "ok"
    assert not (run / "work" / "share").exists()


def files(folder: Path, pattern: str = "*") -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def report(run: Path) -> dict[str, object]:
    values = json.loads((run / "report.json").read_text())
    return {name: value for name, value in values.items() if not name.endswith("_s")}


@each_stage
def test_what_others_computed_the_leader_takes(project: Path, stage: str) -> None:
    """The leader is stopped before each map until the others have done all of it."""
    run = run_folder(project, stage, "three")
    with (
        pod(project, run, stage, 0) as leader,
        pod(project, run, stage, 1) as one,
        pod(project, run, stage, 2) as other,
    ):
        for name, word in MAPS[stage].items():
            wait_for((run / "work" / "share" / word).exists)
            leader.send_signal(signal.SIGSTOP)
            wait_for(partial(has_all_pieces, project, run, stage, name))
            assert not (run / "report.json").exists()
            if name == [*MAPS[stage]][-1]:
                assert [one.wait(60), other.wait(60)] == [0, 0], log(run)
            leader.send_signal(signal.SIGCONT)
        assert leader.wait(120) == 0, log(run)
    assert_as_alone(project, run, stage)


@each_stage
def test_a_helper_that_is_killed_costs_time_and_nothing_else(project: Path, stage: str) -> None:
    run = run_folder(project, stage, "killed", num_workers=2)
    with (
        pod(project, run, stage, 1) as killed,
        pod(project, run, stage, 2) as other,
        pod(project, run, stage, 0) as leader,
    ):
        wait_for(lambda: pieces(run, next(iter(MAPS[stage]))))
        assert killed.poll() is None
        kill(killed)
        assert leader.wait(120) == 0, log(run)
        other.terminate()  # it may wait for another leader
        assert other.wait(30) in (0, InfraError.exit_code), log(run)
    assert_as_alone(project, run, stage)


@each_stage
def test_a_leader_that_is_killed_goes_on_where_it_was_though_nobody_assists(
    project: Path, stage: str
) -> None:
    run = run_folder(project, stage, "left")
    last = [*MAPS[stage]][-1]
    with pod(project, run, stage, 0) as leader:
        wait_for(lambda: pieces(run, last))
        kill(leader)
    assert not has_all_pieces(project, run, stage, last)
    made_at = {path: path.stat().st_mtime_ns for name in MAPS[stage] for path in pieces(run, name)}
    before = len(pieces(run, last))
    (run / "out" / "half").write_text("an output")
    with pod(project, run, stage, 0) as leader:
        wait_for(lambda: len(pieces(run, last)) > before)
        leader.send_signal(signal.SIGSTOP)
        assert {path: path.stat().st_mtime_ns for path in made_at} == made_at
        leader.send_signal(signal.SIGCONT)
        assert leader.wait(120) == 0, log(run)
    assert_as_alone(project, run, stage)


def test_a_helper_goes_on_with_the_leader_that_replaces_another(project: Path) -> None:
    """The new one takes the work away from the old one, whose node nobody may reach."""
    run = run_folder(project, "dedup", "replaced")
    first, second = run / "pods" / "first", run / "pods" / "second"
    for place in (first, second):
        shutil.copytree(run, place, ignore=shutil.ignore_patterns("pods"))
    shutil.rmtree(run / "work")
    shutil.rmtree(second / "work")
    (run / "work").symlink_to(first / "work")
    with pod(project, run, "dedup", 1) as helper:
        with pod(project, first, "dedup", 0) as leader:
            wait_for(lambda: len(pieces(first, "fingerprints")) > 2)
            helper.send_signal(signal.SIGSTOP)
            kill(leader)
        (first / "work").rename(second / "work")
        helper.send_signal(signal.SIGCONT)
        wait_for(lambda: log(run).count("dedup 1/3: waits for the leader") == 2)
        (run / "work").unlink()
        (run / "work").symlink_to(second / "work")
        with pod(project, second, "dedup", 0) as leader:
            wait_for(lambda: pieces(second, "fingerprints"))
            leader.send_signal(signal.SIGSTOP)
            wait_for(partial(has_all_pieces, project, second, "dedup", "fingerprints"))
            leader.send_signal(signal.SIGCONT)
            assert leader.wait(120) == 0, log(second)
        assert helper.poll() in (None, 0), log(run)
    assert_as_alone(project, second, "dedup")


def test_a_helper_that_is_stopped_may_be_started_again_and_says_nothing_of_the_stage(
    project: Path,
) -> None:
    run = run_folder(project, "tokenize", "stopped")
    with pod(project, run, "tokenize", 1) as waiting:
        wait_for(lambda: "tokenize 1/3: waits for the leader" in log(run))
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(30) == InfraError.exit_code
    assert not (run / "outcome.json").exists()


def test_a_helper_that_fails_leaves_the_pieces_to_the_leader_and_says_why_in_its_log(
    project: Path,
) -> None:
    run = run_folder(project, "tokenize", "failed")
    (run / "work" / "share").mkdir()
    (run / "work" / "share" / "tokenizer.json").write_text("no tokenizer")
    (run / "out" / "of the leader").touch()
    with pod(project, run, "tokenize", 1) as failing:
        assert failing.wait(60) == 0
    assert "tokenize 1/3: leaves its pieces to the others: " in log(run)
    assert not (run / "outcome.json").exists()
    assert (run / "out" / "of the leader").exists()


def test_a_stage_without_pieces_needs_no_help(project: Path) -> None:
    run = run_folder(project, "pretrain", "whole")
    with pod(project, run, "pretrain", 2) as idle:
        assert idle.wait(60) == 0
    assert log(run) == ""
    assert not (run / "outcome.json").exists()
