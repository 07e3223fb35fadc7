from pathlib import Path

import pytest
import torch

from components.dpo.reference import reference_digest, stored_logprobs, weights_digest
from components.model.rows import ResponseRow
from tests.small_models import write_model

VALUES = torch.tensor([-1.5, -2.25, -3.0])


def never() -> torch.Tensor:
    raise AssertionError("computed again")


def test_what_was_stored_is_read_and_not_computed_again(tmp_path: Path) -> None:
    first, was_stored = stored_logprobs(tmp_path, "digest", 3, lambda: VALUES)
    assert not was_stored
    again, was_stored = stored_logprobs(tmp_path, "digest", 3, never)
    assert was_stored
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["digest.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "another length", "not finite"])
def test_damaged_numbers_are_computed_again(tmp_path: Path, damage: str) -> None:
    stored = torch.tensor([-1.0, torch.nan, -2.0]) if damage == "not finite" else VALUES
    stored_logprobs(tmp_path, "digest", 3, lambda: stored)
    path = tmp_path / "digest.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "empty":
        path.write_bytes(b"")
    num_rows = 4 if damage == "another length" else 3
    want = torch.arange(float(num_rows))
    got, was_stored = stored_logprobs(tmp_path, "digest", num_rows, lambda: want)
    assert not was_stored
    torch.testing.assert_close(got, want)
    assert stored_logprobs(tmp_path, "digest", num_rows, never)[1]


def test_the_digest_changes_with_the_weights_every_row_and_the_device(tmp_path: Path) -> None:
    weights = [weights_digest(write_model(tmp_path / str(seed), seed)) for seed in (0, 0, 1)]
    assert weights[0] == weights[1] != weights[2]
    rows = [ResponseRow([1, 2, 3], 1), ResponseRow([4, 5], 1)]
    cpu = torch.device("cpu")
    digests = {
        reference_digest(weights[0], rows, cpu),
        reference_digest(weights[2], rows, cpu),
        reference_digest(weights[0], rows[::-1], cpu),
        reference_digest(weights[0], [ResponseRow([1, 2, 3], 2), rows[1]], cpu),
        reference_digest(weights[0], [ResponseRow([1, 23], 1), rows[1]], cpu),
        reference_digest(weights[0], rows, torch.device("cuda")),
    }
    assert len(digests) == 6
