"""What DVC is asked while somebody else uses it."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from zc.lockfile import LockFile

from tasks.dvc import changed_stages


def test_another_dvc_command_is_waited_for_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text("stages:\n  left: {cmd: 'true', outs: [out]}\n")
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.06)
    said: list[str] = []
    is_said = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        is_said.set()

    with ThreadPoolExecutor(1) as pool:
        with closing(LockFile(str(tmp_path / ".dvc" / "tmp" / "lock"))):
            changed = pool.submit(changed_stages, tmp_path, say)
            assert is_said.wait(60)
            time.sleep(0.3)
            assert not changed.done()
        assert set(changed.result(30)) == {"left"}
    assert said == ["waiting for another DVC command, which works here"]
