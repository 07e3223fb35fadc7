"""Runs that end early, and runs on two ranks: real processes."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.train.parallel import operators_folder

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("worker.py")
NUM_STEPS = 20


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def command(*folders: Path, hold_at: int = NUM_STEPS) -> list[str]:
    """A run that waits for its end once it has done `hold_at` steps."""
    return [sys.executable, str(WORKER), str(NUM_STEPS), str(hold_at), *map(str, folders)]


def run_whole(folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    subprocess.run(command(folder), env=environment(), cwd=ROOT, check=True, capture_output=True)
    return load_file(folder / "final.safetensors")


def two_ranks(*folders: Path) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", "2", *command(*folders)[1:]]


def kill_after(folder: Path, step: int) -> None:
    """Start a run and end it with SIGKILL as soon as it reports `step`; it does none after that."""
    folder.mkdir(exist_ok=True)
    with subprocess.Popen(
        command(folder, hold_at=step),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == f"step {step}":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def want(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of an undisturbed run on one rank."""
    return run_whole(tmp_path_factory.mktemp("undisturbed") / "run")


def test_a_run_killed_at_a_random_step_and_resumed_ends_with_the_same_bits(
    tmp_path: Path, want: dict[str, torch.Tensor]
) -> None:
    step = random.randrange(4, NUM_STEPS)
    kill_after(tmp_path / "killed", step)
    assert not (tmp_path / "killed" / "final.safetensors").exists()

    got = run_whole(tmp_path / "killed")

    differing = [name for name in want if not torch.equal(want[name], got[name])]
    assert differing == [], f"killed at step {step}"


def test_a_damaged_newest_checkpoint_is_passed_over(
    tmp_path: Path, want: dict[str, torch.Tensor]
) -> None:
    kill_after(tmp_path / "killed", 11)
    newest = sorted((tmp_path / "killed" / "checkpoints").glob("step-*"))[-1]
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    done = subprocess.run(
        command(tmp_path / "killed"), env=environment(), cwd=ROOT, check=True, capture_output=True
    )

    assert f"checkpoint {newest.name} is damaged" in done.stdout.decode()
    got = load_file(tmp_path / "killed" / "final.safetensors")
    assert all(torch.equal(want[name], got[name]) for name in want)


@pytest.mark.timeout(600)
def test_two_ranks_with_zero_1_agree_with_one_and_resume_from_its_checkpoint(
    tmp_path: Path, want: dict[str, torch.Tensor]
) -> None:
    (tmp_path / "two").mkdir()
    # As a process leaves it that is killed while it compiles; torch alone would wait for ever.
    left_behind = operators_folder() / "deepspeed_shm_comm" / "lock"
    left_behind.parent.mkdir(parents=True, exist_ok=True)
    left_behind.touch()
    kill_after(tmp_path / "mixed", 10)

    # The first from the start. The second was begun by one rank: a checkpoint does not know how many
    # wrote it.
    folders = tmp_path / "two", tmp_path / "mixed"
    done = subprocess.run(
        two_ranks(*folders), env=environment(), cwd=ROOT, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert done.stdout.count(b"going on from checkpoint") == 1
    for folder in folders:
        got = load_file(folder / "final.safetensors")
        for name in want:
            torch.testing.assert_close(got[name], want[name], rtol=2e-4, atol=2e-5)
