"""What is killed, cut off or changed in the middle: nothing is lost, and nothing wrong is recorded."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.process import started_ticks
from tasks.publish import LOCK
from tests.integration.tasks import toy
from tests.integration.tasks.processes import pods_of, started_run, wait_for, working_in

LAUNCH = [sys.executable, "-m", "tasks.launch"]
TIMEOUT_S = 180.0


def start(
    project: Path, *command: str, grace_s: float = 60, **streams: object
) -> "subprocess.Popen[str]":
    variables = toy.environment() | {"HEADRACE_GRACE_S": str(grace_s)}
    return subprocess.Popen(
        command, cwd=project, env=variables, text=True,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | streams),
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def test_params_changed_while_a_stage_runs_are_not_recorded_with_its_output(project: Path) -> None:
    lock = (project / "dvc.lock").read_bytes()
    toy.set_param(project, "left", text="A")
    with toy.held(project):
        process = start(project, sys.executable, "-m", "dvc", "repro", "left")
        wait_for(lambda: started_run(project / "runs" / "left"))
        toy.set_param(project, "left", text="B")
    said = process.communicate()[0]
    assert "user error: left: params, code or inputs were changed while it ran" in said
    assert (project / "dvc.lock").read_bytes() == lock
    assert toy.text_of(project, "left") == "sl"
    toy.set_param(project, "left", text="A")
    again = toy.dvc(project, "repro", "left").stdout
    assert "steps" not in again.replace("num_steps", "")  # published, not computed again
    assert toy.text_of(project, "left") == "sA"


def test_a_stage_forced_twice_is_computed_twice(project: Path) -> None:
    for _ in range(3):
        assert "left: 2/2 steps" in toy.dvc(project, "repro", "-f", "-s", "left").stdout


def test_a_missing_input_costs_a_stage_nothing_and_is_one_line(
    project: Path, prefect_api: str
) -> None:
    (project / "artifacts" / "source" / "text").unlink()
    (project / "artifacts" / "source").rmdir()
    toy.set_param(project, "left", text="N")
    done = toy.run(
        project, sys.executable, "-m", "tasks.cli", "stage", "left", check=False,
        PREFECT_API_URL=prefect_api,
    )  # fmt: skip
    assert done.returncode == 65
    assert "left: artifacts/source is missing" in done.stdout
    assert toy.text_of(project, "left") == "sl"


def test_a_stage_whose_reader_is_gone_ends_and_puts_the_last_good_output_back(
    project: Path,
) -> None:
    toy.set_param(project, "left", fate="user", num_steps=20)
    reader, writer = os.pipe()
    with toy.held(project):
        process = start(project, sys.executable, "-m", "dvc", "repro", "left", stdout=writer)
        os.close(writer)
        run = wait_for(lambda: started_run(project / "runs" / "left"))
        os.close(reader)
    process.wait(TIMEOUT_S)
    assert json.loads((run / "outcome.json").read_text())["kind"] == "user"
    assert "20/20 steps" in (run / "log.txt").read_text()
    assert toy.text_of(project, "left") == "sl"


def test_a_stage_that_outlives_its_launch_is_waited_for_and_never_joined_by_a_second(
    project: Path,
) -> None:
    toy.set_param(project, "left", text="W", fate='"ignores the signal"')
    with toy.held(project):
        process = start(project, *LAUNCH, "left", stdout=subprocess.DEVNULL)
        run = wait_for(lambda: started_run(project / "runs" / "left"))
        process.kill()
        process.wait()
        (survivor,) = pods_of(project)
        second = start(project, *LAUNCH, "left")
        wait_for(lambda: has_open(second.pid, run / LOCK))
        time.sleep(1)  # it asks for the lock five times
        assert pods_of(project) == [survivor]
    said = second.communicate(timeout=TIMEOUT_S)[0]
    assert second.returncode == 0, said
    assert (run / "work" / "started").read_text() in ("x", "xx")
    assert not (project / "runs" / "twice.txt").exists()
    assert pods_of(project) == []


@pytest.fixture
def both(project: Path) -> tuple[Path, Path]:
    """The project and an experiment, that need the same attempt at `left`."""
    toy.set_param(project, "left", text="B")
    return project, toy.workspace(project, "dpo.beta", 0.2)


def test_of_two_workspaces_that_want_the_same_attempt_one_waits_as_long_as_it_takes(
    both: tuple[Path, Path],
) -> None:
    home, experiment = both
    with toy.held(home):
        first = start(home, *LAUNCH, "left", stdout=subprocess.DEVNULL)
        run = wait_for(lambda: started_run(home / "runs" / "left"))
        second = start(experiment, *LAUNCH, "left", grace_s=0.5)
        assert second.stdout is not None
        said = second.stdout.readline()
        assert f"left: waits for process {first.pid} (" in said
        assert f", {home}): it works on the same attempt" in said
        time.sleep(1)  # twice its grace
    said, _ = second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0, said
    assert first.wait(TIMEOUT_S) == 0
    assert (run / "work" / "started").read_text() == "x"
    assert [toy.text_of(root, "left") for root in both] == ["sB", "sB"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_waits_for_the_same_attempt_ends_at_once_when_asked(
    both: tuple[Path, Path], number: signal.Signals
) -> None:
    home, experiment = both
    with toy.held(home):
        first = start(home, *LAUNCH, "left", stdout=subprocess.DEVNULL)
        wait_for(lambda: started_run(home / "runs" / "left"))
        second = start(experiment, *LAUNCH, "left")
        assert second.stdout is not None
        assert "left: waits for process" in second.stdout.readline()
        second.send_signal(number)
        said, _ = second.communicate(timeout=TIMEOUT_S)
        assert second.returncode == 75
        assert f"infra error: left was ended by {number.name} before it began" in said
        assert first.poll() is None
    assert first.wait(TIMEOUT_S) == 0


def has_open(pid: int, path: Path) -> bool:
    return any(file.resolve() == path.resolve() for file in Path(f"/proc/{pid}/fd").glob("*"))


def test_a_dead_launch_takes_its_stage_with_it(project: Path) -> None:
    toy.set_param(project, "left", text="W")
    with toy.held(project):
        process = start(project, *LAUNCH, "left", stdout=subprocess.DEVNULL)
        wait_for(lambda: started_run(project / "runs" / "left"))
        process.kill()
        process.wait()
        wait_for(lambda: not pods_of(project))


def test_only_changed_code_can_be_accepted(project: Path) -> None:
    toy.set_param(project, "left", text="other")
    accept = [sys.executable, "-m", "tasks.cli", "accept", "left"]
    done = toy.run(project, *accept, check=False)
    assert done.returncode == 64
    assert "user error: left: changed deps: params.yaml" in done.stdout
    toy.set_param(project, "left", text="l")
    toy.add_code(project, "left", "# a comment\n")
    toy.run(project, *accept)
    assert "Running stage" not in toy.dvc(project, "repro").stdout


def test_a_killed_flow_takes_its_temporary_server_with_it(project: Path) -> None:
    toy.set_param(project, "left", text="K")
    with toy.held(project):
        flow = start(project, sys.executable, "-m", "tasks.cli", "run", stdout=subprocess.DEVNULL)
        wait_for(lambda: pods_of(project))
        assert working_in(project, "uvicorn")
        flow.kill()
        flow.wait()
        wait_for(lambda: not working_in(project, "uvicorn"))


OPEN = "from pathlib import Path; from tasks.workspace import opened"
OPEN += "\nwith opened(Path.cwd(), {'dpo.beta': 0.2}) as root: print(root)"


def test_a_flow_waits_for_what_still_makes_the_workspace_of_a_killed_one(project: Path) -> None:
    hook = project / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\nwhile [ -e {project}/runs/hold ]; do sleep 0.1; done\n")
    hook.chmod(0o755)
    with toy.held(project):
        first = start(project, sys.executable, "-uc", OPEN, stdout=subprocess.DEVNULL)
        wait_for(lambda: working_in(project, "worktree add"))
        first.kill()
        first.wait()
        second = start(project, sys.executable, "-uc", OPEN)
        assert second.stdout is not None
        said = second.stdout.readline()
        assert said.startswith(f"waiting for the flow run of process {first.pid} (")
    said, _ = second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0, said
    assert Path(said.split()[-1], "dvc.yaml").exists()


def test_a_workspace_that_a_killed_git_has_left_locked_is_made_again_and_saved(
    project: Path,
) -> None:
    root = toy.workspace(project, "dpo.beta", 0.2)
    git = Path(toy.run(root, "git", "rev-parse", "--absolute-git-dir").stdout.strip())
    shutil.rmtree(root)
    (git / "locked").write_text("initializing")
    assert toy.workspace(project, "dpo.beta", 0.2) == root
    assert (root / "dvc.yaml").exists()


def test_workers_end_with_the_process_they_work_for(tmp_path: Path) -> None:
    script = tmp_path / "pool_user.py"
    script.write_text(
        "import os, time\nfrom components.pool import map_ordered\n"
        # In one write: two that print at once may both have written their numbers before a line ends.
        "def work(item):\n    os.write(1, b'%d\\n' % os.getpid())\n    time.sleep(600)\n"
        "if __name__ == '__main__':\n    list(map_ordered(work, range(4), 2))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=toy.ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": f"{toy.ROOT}:{tmp_path}"},
    )  # fmt: skip
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: all(started_ticks(pid) is None for pid in workers))
