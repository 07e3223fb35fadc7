"""The training loop on a GPU: bf16, stop and go, and what it says when the memory is too small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import UserError
from components.metrics import QuietSink
from components.pretrain.stage import language_loss
from components.train.guard import GuardSettings
from components.train.hardware import peak_flops_per_s
from components.train.loop import Batch, TrainResult, train
from components.train.update import AdamWSettings
from tests.gpu.packed import CPU, GPU, batch, model

NUM_STEPS = 30


def fit(
    net: Any,
    folder: Path,
    batches_at: Callable[[int], list[Batch]] = lambda step: [batch(step)],
    num_steps: int = NUM_STEPS,
) -> TrainResult:
    return train(
        net,
        batches_at,
        language_loss,
        num_steps=num_steps,
        optimiser=AdamWSettings(0.9, 0.95, 1e-8, 0.1),
        schedule=lambda step: 1e-3 * min(1.0, (step + 1) / 5),
        max_grad_norm=1.0,
        seed=3,
        checkpoints=folder,
        checkpoint_every_steps=10,
        keep_checkpoints=1,
        guard=GuardSettings(spike_z=100.0, window_steps=50, max_skipped_steps=0),
        sink=QuietSink(),
    )


def test_training_in_bf16_follows_training_in_fp32_on_the_cpu(tmp_path: Path) -> None:
    narrow = fit(model("varlen"), tmp_path / "gpu").losses
    wide = fit(model("varlen").to(CPU), tmp_path / "cpu").losses
    assert wide[-1] < wide[0] - 1  # it learned, so there was something to follow
    assert narrow == pytest.approx(wide, rel=0.01)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("attention", "compiled"), [("varlen", False), ("varlen", True), ("sdpa", False)]
)
def test_a_run_that_was_killed_and_started_again_follows_the_undisturbed_one(
    attention: Any, compiled: bool, tmp_path: Path
) -> None:
    def new(seed: int) -> Any:
        net = model(attention, seed=seed)
        if compiled:
            net.model.compile()
        return net

    def dying(step: int) -> list[Batch]:
        if step == 17:
            raise Killed
        return [batch(step)]

    undisturbed = fit(new(0), tmp_path / "undisturbed")
    with pytest.raises(Killed):
        fit(new(0), tmp_path / "killed", dying)
    resumed = fit(new(1), tmp_path / "killed")  # whatever it begins with, the checkpoint counts
    assert resumed.resumed_from_step == 10
    # Not to the bit: flash and memory-efficient attention add their gradients in the order in
    # which blocks finish, so two undisturbed runs part after a step or two, by 3 to 5 in 10^6.
    assert resumed.losses[10:12] == pytest.approx(undisturbed.losses[10:12], rel=1e-3)
    assert resumed.losses == pytest.approx(undisturbed.losses, rel=0.01)


def test_a_batch_too_large_for_the_memory_is_one_error_that_names_what_to_lower(
    tmp_path: Path,
) -> None:
    net = model("varlen")
    rows = batch(0, [(512,)] * 2048)
    total = torch.cuda.get_device_properties(GPU).total_memory
    try:
        # As on a card of 2 GiB: a million tokens' activations are a hundred times that.
        torch.cuda.set_per_process_memory_fraction(2 * 2**30 / total, GPU)
        with pytest.raises(UserError, match="out of GPU memory") as raised:
            fit(net, tmp_path, lambda step: [rows], num_steps=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
        torch.cuda.empty_cache()
    assert "rows_per_micro_batch" in raised.value.hint


def test_the_peak_of_this_gpu_is_known_and_a_matmul_comes_near_it_but_not_above() -> None:
    peak = peak_flops_per_s(GPU)
    assert peak is not None
    size = 8192
    matrix = torch.randn(size, size, device=GPU, dtype=torch.bfloat16)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        matrix @ matrix
    begin.record()
    for _ in range(10):
        matrix @ matrix
    end.record()
    torch.cuda.synchronize()
    measured = 10 * 2 * size**3 / (begin.elapsed_time(end) / 1e3)
    assert 0.4 * peak < measured < 1.05 * peak
