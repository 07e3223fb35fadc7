"""The whole stage on a small model: both kinds of pairs, one model in memory, the same bytes."""

import gc
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from components.contract import Report, StageIO
from components.dpo.params import DpoParams
from components.dpo.stage import run
from components.errors import DataError
from components.gates.check import check_contract
from components.metrics import QuietSink
from components.model.llama import load_model
from components.model.reward import RewardModel, save_reward_model
from components.preference.ratings import write_update
from components.shards import read_table
from tests.builders import stage_io
from tests.preferences import file_digests, write_ratings
from tests.small_models import write_model

PARAMS: dict[str, Any] = {
    "loss": "sigmoid",
    "beta": 0.1,
    "label_smoothing": 0.0,
    "rated": {"min_margin": 0.5, "num_prompts": 30, "pairs_per_prompt": 2},
    "sampled": {
        "min_margin": 0.01,
        "num_prompts": 10,
        "samples_per_prompt": 8,
        "temperature": 1.0,
        "top_p": 1.0,
    },
    "max_new_tokens": 40,
    "generation_batch_size": 64,
    "row_length": 120,
    "pairs_per_batch": 8,
    "pairs_per_micro_batch": 4,
    "num_steps": 20,
    "optimiser": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    "schedule": {
        "kind": "cosine",
        "learning_rate": 5e-4,
        "warmup_steps": 2,
        "final_fraction": 0.1,
        "decay_fraction": 1.0,
    },
    "max_grad_norm": 1.0,
    "guard": {"spike_z": 20.0, "window_steps": 20, "max_skipped_steps": 5},
    "checkpoints": {"every_steps": 6, "keep": 1},
    "evaluate_every_steps": 10,
    "num_held_out_prompts": 12,
    "num_resamples": 200,
}


class Watch(QuietSink):
    """Counts the language and reward models in memory at every tenth step; may cut the power."""

    def __init__(self, metrics_until: int = -1) -> None:
        self._left = metrics_until
        self.num_models: list[int] = []
        self.lines: list[str] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if step % 10 == 0:  # to look at all objects takes longer than a step
            gc.collect()
            kinds = (LlamaForCausalLM, RewardModel)
            self.num_models.append(sum(isinstance(one, kinds) for one in gc.get_objects()))
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt

    def info(self, message: str) -> None:
        self.lines.append(message)


def write_reward_models(folder: Path, sft: Path) -> Path:
    """Heads of random weights on the SFT model: arbitrary, but they do tell answers apart."""
    for name, num_outputs in (("model", 6), ("baseline", 1)):
        language_model: Any = load_model(sft)
        model = RewardModel(language_model.model, num_outputs)
        torch.manual_seed(num_outputs)
        torch.nn.init.normal_(model.head.weight)
        save_reward_model(model, sft, folder / name)
    write_update(folder, prior_strength=2.0, smoothing=0.05)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    sft = write_model(folder / "sft")
    return {
        "sft": folder / "sft",
        "reward_model": write_reward_models(folder / "reward_model", sft),
        "dedup": write_ratings(folder / "dedup", 40, 15),
    }


@pytest.fixture(scope="module")
def finished(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[StageIO, Report, Watch]:
    io, watch = stage_io(tmp_path_factory.mktemp("run"), inputs), Watch()
    return io, run(DpoParams(**PARAMS), io, watch), watch


def test_it_starts_at_ln_2_and_learns_to_tell_held_out_pairs_apart(
    finished: tuple[StageIO, Report, Watch],
) -> None:
    _, report, _ = finished
    assert report["train"]["first_loss_nats"] == pytest.approx(math.log(2), abs=1e-4)
    assert report["train"]["last_loss_nats"] < 0.5
    pairs = report["held_out"]["pairs"]
    assert pairs["reward_accuracy"] > 0.9
    assert pairs["reward_margin"] > 0
    assert pairs["chosen_logprob_shift_nats"] > pairs["rejected_logprob_shift_nats"]
    assert report["held_out"]["sampled"]["after"]["kl_nats_per_token"] > 0


def test_pairs_of_both_origins_are_published_with_their_rewards(
    finished: tuple[StageIO, Report, Watch], tmp_path: Path
) -> None:
    io, report, _ = finished
    table = read_table(io.out / "pairs" / "train").to_pandas()
    counts = table["origin"].value_counts().to_dict()
    assert counts["rated"] == report["pairs"]["num_rated"] == 60
    assert counts["sampled"] == report["pairs"]["num_sampled"] > 0
    margins = table["chosen_reward"] - table["rejected_reward"]
    assert (margins[table["origin"] == "rated"] >= 0.5).all()
    assert (margins[table["origin"] == "sampled"] >= 0.01).all()
    contract = Path(__file__).parents[3] / "components/dpo/contract.yaml"
    check_contract(contract, io.out, report, tmp_path / "page.html")
    assert {path.name for path in io.reports.iterdir()} == {
        "margins.png",
        "rewards.png",
        "samples.md",
    }


def test_no_reference_and_no_reward_model_is_in_memory_while_it_trains(
    finished: tuple[StageIO, Report, Watch],
) -> None:
    assert len(finished[2].num_models) >= 2
    assert set(finished[2].num_models) == {1}


def test_the_published_model_and_tokenizer_load_with_transformers_alone(
    finished: tuple[StageIO, Report, Watch],
) -> None:
    folder = finished[0].out / "model"
    model = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Creates a bucket.", return_tensors="pt")
    assert np.isfinite(model(**ids).logits.detach().numpy()).all()


def test_killed_and_started_again_it_reads_the_reference_and_publishes_the_same_bytes(
    inputs: dict[str, Path], finished: tuple[StageIO, Report, Watch], tmp_path: Path
) -> None:
    io = stage_io(tmp_path, inputs)
    with pytest.raises(KeyboardInterrupt):
        run(DpoParams(**PARAMS), io, Watch(metrics_until=11))
    stored = file_digests(io.cache)
    assert stored
    again = stage_io(tmp_path / "again", inputs)
    resumed = replace(again, work=io.work, cache=io.cache)
    report = run(DpoParams(**PARAMS), resumed, QuietSink())
    assert report["reference_was_stored"]
    assert report["train"]["resumed_from_step"] == 6
    assert file_digests(io.cache) == stored
    assert file_digests(again.out) == file_digests(finished[0].out)


def test_another_beta_reads_the_references_numbers_and_gives_the_bytes_it_gives_without(
    inputs: dict[str, Path],
    finished: tuple[StageIO, Report, Watch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = DpoParams(**(PARAMS | {"beta": 0.3, "num_steps": 4}))
    alone = stage_io(tmp_path / "alone", inputs)
    assert not run(params, alone, QuietSink())["reference_was_stored"]
    before = file_digests(finished[0].cache)
    assert len(before) == 2  # training and held-out pairs
    sharing, watch = stage_io(tmp_path / "sharing", inputs, cache=finished[0].cache), Watch()
    monkeypatch.setattr(
        "components.dpo.encoded.response_logprobs", lambda *_: pytest.fail("computed again")
    )
    assert run(params, sharing, watch)["reference_was_stored"]
    assert any("not computed again" in line for line in watch.lines)
    assert file_digests(finished[0].cache) == before
    assert file_digests(sharing.out) == file_digests(alone.out)


@pytest.mark.parametrize("loss", ["cdpo", "ipo"])
def test_the_other_losses_train_too(inputs: dict[str, Path], tmp_path: Path, loss: str) -> None:
    rated_alone = {"sampled": PARAMS["sampled"] | {"num_prompts": 0}}
    changed = PARAMS | rated_alone | {"loss": loss, "label_smoothing": 0.1, "num_steps": 12}
    report = run(DpoParams(**changed), stage_io(tmp_path, inputs), QuietSink())
    assert report["train"]["last_loss_nats"] < report["train"]["first_loss_nats"]
    assert report["held_out"]["pairs"]["reward_accuracy"] > 0.7


def test_without_a_pair_it_says_what_to_change(inputs: dict[str, Path], tmp_path: Path) -> None:
    rated = PARAMS["rated"] | {"min_margin": 4.0}
    with pytest.raises(DataError, match="no valid pair") as caught:
        run(DpoParams(**(PARAMS | {"rated": rated})), stage_io(tmp_path, inputs), QuietSink())
    assert "min_margin" in caught.value.hint
