from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.errors import disk_error
from components.train.checkpoint import Checkpoint, load_newest_checkpoint, save_checkpoint
from tests.integration.tasks.disks import Disk, enter_namespace, unmount


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    enter_namespace()
    (tmp_path / "work").mkdir()
    yield Disk(tmp_path / "work", 100)
    unmount(tmp_path)


def checkpoint(step: int) -> Checkpoint:
    weights = {"w": torch.full((128, 40), float(step))}  # 20 KiB
    return Checkpoint(step, weights, {"exp_avg.w": torch.ones(128, 40)}, {"seed": 7})


def test_a_checkpoint_that_a_full_disk_cuts_off_leaves_the_one_before_and_nothing_else(
    disk: Disk,
) -> None:
    save_checkpoint(disk.path, checkpoint(1), keep=2)
    disk.fill()
    with pytest.raises(Exception, match="No space left on device") as caught:
        save_checkpoint(disk.path, checkpoint(2), keep=2)
    typed = disk_error(caught.value, disk.path)
    assert typed is not None
    assert typed.line.startswith(f"infra error: No space left on device: {disk.path}")
    assert sorted(path.name for path in disk.path.iterdir()) == ["ballast", "step-000000001"]
    disk.grow()
    found = load_newest_checkpoint(disk.path, pytest.fail)
    assert found is not None
    assert found.step == 1
    save_checkpoint(disk.path, checkpoint(2), keep=2)
    assert (load_newest_checkpoint(disk.path, pytest.fail) or checkpoint(0)).step == 2
