"""From when on the serving process looks after Jobs."""

import asyncio
from pathlib import Path

import pytest

from flows import deployments
from tasks.cluster import reaper
from tasks.config import ON_CLUSTER, Settings


@pytest.mark.parametrize(
    ("launcher", "has_jobs", "looks"),
    [("local", False, False), ("local", True, True), ("kubernetes", False, True)],
)
def test_jobs_are_looked_after_once_a_flow_run_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, has_jobs: bool, looks: bool
) -> None:
    monkeypatch.setattr(deployments, "LOOK_S", 0.01)
    monkeypatch.setenv("HEADRACE_LAUNCHER", launcher)
    watched: list[Path] = []

    async def watch(settings: Settings, home: Path) -> None:
        watched.append(home)

    monkeypatch.setattr(reaper, "watch", watch)
    (tmp_path / ON_CLUSTER).parent.mkdir()

    async def serve_a_moment() -> None:
        task = asyncio.create_task(deployments._reap(Settings(), tmp_path))
        await asyncio.sleep(0.03)
        assert bool(watched) == (launcher == "kubernetes")
        if has_jobs:
            (tmp_path / ON_CLUSTER).touch()
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(serve_a_moment())
    assert bool(watched) == looks
