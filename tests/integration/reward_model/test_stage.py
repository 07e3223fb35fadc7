"""The whole stage on a small model: it learns, publishes the same bytes, and goes on when killed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.contract import Report, StageIO
from components.errors import DataError
from components.gates.check import check_contract
from components.metrics import QuietSink
from components.model.reward import load_reward_model, score
from components.reward_model.params import RewardModelParams
from components.reward_model.stage import run
from components.shards import read_table
from tests.builders import stage_io, write_corpus
from tests.preferences import GOOD, file_digests, rated_rows, write_ratings
from tests.small_models import write_model

PARAMS: dict[str, Any] = {
    "loss": "ot",
    "distance_power": 2,
    "tie_breaker": 0.1,
    "compare_losses": True,
    "prior_strength": 2.0,
    "smoothing": 0.05,
    "row_length": 96,
    "prompts_per_batch": 8,
    "prompts_per_micro_batch": 4,
    "num_steps": 30,
    "optimiser": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    "schedule": {
        "kind": "cosine",
        "learning_rate": 3e-3,
        "warmup_steps": 3,
        "final_fraction": 0.1,
        "decay_fraction": 1.0,
    },
    "max_grad_norm": 1.0,
    "guard": {"spike_z": 20.0, "window_steps": 20, "max_skipped_steps": 5},
    "checkpoints": {"every_steps": 7, "keep": 1},
    "num_held_out_prompts": 20,
    "num_bins": 5,
    "num_resamples": 200,
}


class Power(QuietSink):
    """Fails in the middle of the work, as a power cut does."""

    def __init__(self, metrics_until: int) -> None:
        self._left = metrics_until

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "sft")
    return {"sft": folder / "sft", "dedup": write_ratings(folder / "dedup", 40, 25)}


@pytest.fixture(scope="module")
def finished(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[StageIO, Report]:
    io = stage_io(tmp_path_factory.mktemp("run"), inputs)
    return io, run(RewardModelParams(**PARAMS), io, QuietSink())


def test_it_learns_what_the_crowd_thinks(finished: tuple[StageIO, Report]) -> None:
    io, report = finished
    assert report["num_held_out_prompts"] == 20
    for figures in report["losses"].values():
        assert figures["ot_reward"] < 0.5 * report["constant"]["ot_reward"]
        assert figures["pairwise_accuracy"] > 0.9
    assert report["bradley_terry"]["pairwise_accuracy"] > 0.9
    assert report["constant"]["pairwise_accuracy"] == 0.5
    assert report["crowd"]["pairwise_accuracy"] == 1.0
    assert report["crowd"]["ot_reward"] == 0.0
    model, tokenizer = load_reward_model(io.out / "model")
    prompts = ["What does operation 9 do?"] * 3
    answers = [GOOD[0], "It depends 77.", f"{GOOD[0]} Delete the log."]
    right, vague, unsafe = score(model, tokenizer, prompts, answers)
    assert right > vague > unsafe


def test_what_it_publishes_keeps_its_contract(
    finished: tuple[StageIO, Report], tmp_path: Path
) -> None:
    io, report = finished
    contract = Path(__file__).parents[3] / "components/reward_model/contract.yaml"
    check_contract(contract, io.out, report, tmp_path / "page.html")
    table = read_table(io.out / "predictions")
    assert table.num_rows == 60
    np.testing.assert_allclose(np.sum(table["predicted"].to_pylist(), axis=1), 1.0)
    pages = {path.name for path in io.reports.iterdir()}
    assert pages == {"calibration.png", "candidates.png", "held_out.md"}
    assert "simulated crowd (synthetic)" in (io.reports / "held_out.md").read_text()


@pytest.mark.parametrize("metrics_until", [12, 70])
def test_killed_and_started_again_it_publishes_the_same_bytes(
    inputs: dict[str, Path],
    finished: tuple[StageIO, Report],
    tmp_path: Path,
    metrics_until: int,
) -> None:
    io = stage_io(tmp_path, inputs)
    with pytest.raises(KeyboardInterrupt):
        run(RewardModelParams(**PARAMS), io, Power(metrics_until))
    assert list((io.work / "checkpoints").iterdir())
    again = stage_io(tmp_path / "again", inputs)
    resumed = replace(again, work=io.work)
    run(RewardModelParams(**PARAMS), resumed, QuietSink())
    assert file_digests(again.out) == file_digests(finished[0].out)


def test_without_a_prompt_of_two_different_answers_it_says_so(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    io = stage_io(tmp_path, inputs)
    with pytest.raises(DataError, match="every answer exceeds 32 tokens"):
        run(RewardModelParams(**(PARAMS | {"row_length": 32})), io, QuietSink())


def test_a_batch_that_prefers_nothing_is_refused_before_anything_is_trained(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    rows = rated_rows(12, 1)
    for row in rows[:33]:  # eleven of the twelve prompts
        row["votes"] = (1, 2, 3)
    splits = {"train": rows, "valid": rated_rows(5, 2)}
    write_corpus(tmp_path / "dedup", {}, rated_responses=splits)
    io = stage_io(tmp_path, inputs | {"dedup": tmp_path / "dedup"})
    few = PARAMS | {"prompts_per_batch": 4, "prompts_per_micro_batch": 4}
    with pytest.raises(DataError, match=r"in the batch of step \d+, the crowd prefers no answer"):
        run(RewardModelParams(**few), io, QuietSink())
    assert not list(io.work.iterdir())
