import os
import sys
from pathlib import Path

import pytest

from components.errors import InfraError, StageError, UserError
from tasks import outcome, workspace
from tasks.config import EXPERIMENTS
from tasks.locks import held
from tasks.run_dir import Latest, RunDir, write_latest
from tasks.workspace import KEPT, remove_old, run_git


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project with KEPT + 3 worktrees: 0 was used last."""
    run_git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("text")
    run_git(tmp_path, "add", "file")
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    run_git(tmp_path, *who, "commit", "--quiet", "-m", "Begin")
    for age in range(KEPT + 3):
        root = tmp_path / EXPERIMENTS / str(age)
        run_git(tmp_path, "worktree", "add", "--quiet", "--detach", str(root), "HEAD")
        (root / "artifacts").mkdir()
        (root / "artifacts" / "untracked").write_text("large")
        lock = root.with_name(f".{age}.lock")
        lock.touch()
        os.utime(lock, (1e9 - age, 1e9 - age))
    return tmp_path


def test_all_worktrees_but_the_newest_go_unless_something_runs_there(home: Path) -> None:
    oldest, with_a_job, free = (home / EXPERIMENTS / str(KEPT + age) for age in (2, 1, 0))
    for root, key, launcher in (
        (with_a_job, "goes-on", "kubernetes"), (with_a_job, "killed", "local"),
        (free, "ended", "kubernetes"), (free, "killed", "local"),
    ):  # fmt: skip
        run = RunDir(root, key, key)
        write_latest(root, key, Latest(key))
        run.path.mkdir(parents=True, exist_ok=True)
        outcome.write_json(run.request, {"launcher": launcher})
    ended = outcome.Outcome("ended", "ended", "ok", 0, "", "", "here", 1, 0.0, 0.0, 0.0)
    outcome.write(RunDir(free, "ended", "ended").path, ended)
    (home / EXPERIMENTS / ".killed.gone").mkdir()
    said: list[str] = []
    lock = oldest.with_name(f".{oldest.name}.lock")
    with held(lock, "process 1", print):
        os.utime(lock, (0, 0))
        remove_old(home, said.append)
    kept = {root.name for root in (home / EXPERIMENTS).iterdir() if root.is_dir()}
    assert kept == {*map(str, range(KEPT)), with_a_job.name, oldest.name}
    assert said == [f"removing the workspace of {free.name}: {KEPT} newer ones are kept"]
    assert str(free) not in run_git(home, "worktree", "list")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("fatal: cannot create directory at 'components': No space left on device", InfraError),
        ("fatal: could not open '.git/HEAD': Permission denied", UserError),
        ("fatal: not a git repository", StageError),
    ],
)
def test_what_a_disk_refuses_git_is_the_disks_fault_and_not_a_bug(
    tmp_path: Path, said: str, kind: type[StageError]
) -> None:
    with pytest.raises(StageError) as caught:
        workspace._run(tmp_path, [sys.executable, "-c", f'import sys; sys.exit("""{said}""")'])
    assert type(caught.value) is kind
