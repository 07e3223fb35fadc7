from pathlib import Path

import pytest
import torch

from components.train.checkpoint import Checkpoint, load_newest_checkpoint, save_checkpoint


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        weights={"w": torch.full((3, 2), float(step)), "b": torch.ones(2, dtype=torch.bfloat16)},
        optimiser={"exp_avg.w": torch.arange(6.0).view(3, 2).T},
        state={"losses": [1.5, None], "seed": 7},
    )


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(5), keep=2)
    found = load_newest_checkpoint(tmp_path, pytest.fail)
    assert found is not None
    assert found.step == 5
    assert found.state == {"losses": [1.5, None], "seed": 7}
    for name, tensor in checkpoint(5).weights.items():
        assert torch.equal(found.weights[name], tensor)
        assert found.weights[name].dtype == tensor.dtype
    assert torch.equal(found.optimiser["exp_avg.w"], checkpoint(5).optimiser["exp_avg.w"])


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 3):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000010"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "one bit", "emptied", "of another kind"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    tmp_path: Path, name: str, damage: str
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    path = tmp_path / "step-000000002" / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-3])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "of another kind":
        path.write_bytes(b"[]")
    else:
        data[2] ^= 0x80
        path.write_bytes(data)
    said: list[str] = []
    found = load_newest_checkpoint(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert [line.split(" is ")[0] for line in said] == ["checkpoint step-000000002"]


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2)
    (tmp_path / ".part-000000002").mkdir()
    found = load_newest_checkpoint(tmp_path, pytest.fail)
    assert found is not None
    assert found.step == 1


def test_the_next_one_removes_what_a_killed_run_left_half_written(tmp_path: Path) -> None:
    (tmp_path / ".part-000000002").mkdir()
    save_checkpoint(tmp_path, checkpoint(4), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000004"]


def test_none_is_none(tmp_path: Path) -> None:
    assert load_newest_checkpoint(tmp_path / "nothing", pytest.fail) is None
