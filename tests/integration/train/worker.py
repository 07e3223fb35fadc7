"""A small training run in a process of its own: to be killed, resumed, or run on two ranks.

Several folders are several runs, one after the other.
"""

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from components.metrics import QuietSink
from components.model.llama import build_model, llama_config
from components.model.packed import next_token_loss
from components.train.guard import GuardSettings
from components.train.loop import Batch, Loss, train
from components.train.parallel import rank
from components.train.schedule import schedule
from components.train.update import AdamWSettings


class LoudSink(QuietSink):
    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        print(f"step {done}", flush=True)

    def info(self, message: str) -> None:
        print(message, flush=True)


def batches_at(step: int) -> list[Batch]:
    """Four micro-batches of different weights, two documents a row."""
    generator = torch.Generator().manual_seed(step)
    batches = []
    for index in range(4):
        ids = torch.randint(9, 128, (2, 33), generator=generator)
        positions = torch.arange(32).repeat(2, 1)
        positions[:, 20:] -= 20
        targets = ids[:, 1:].clone()
        targets[:, : 4 * index] = -100
        batches.append({"input_ids": ids[:, :-1], "position_ids": positions, "targets": targets})
    return batches


def loss(model: torch.nn.Module, batch: Batch) -> Loss:
    total, weight = next_token_loss(
        model, batch["input_ids"], batch["position_ids"], batch["targets"]
    )
    # Random state must be restored too: dropout-like noise that enters the gradient.
    return Loss(total * (1 + 0.1 * torch.rand(())), weight)


def main(folder: Path, num_steps: int, hold_at: int) -> None:
    torch.set_num_threads(1)
    config = llama_config(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        max_length=64,
        rope_theta=10000.0,
        norm_eps=1e-5,
    )
    model = build_model(config, seed=1, attention="varlen")

    def batches(step: int) -> list[Batch]:
        while step == hold_at:
            time.sleep(1)
        return batches_at(step)

    result = train(
        model,
        batches,
        loss,
        num_steps=num_steps,
        optimiser=AdamWSettings(0.9, 0.95, 1e-8, 0.1),
        schedule=schedule(
            "cosine",
            learning_rate=3e-3,
            num_steps=num_steps,
            warmup_steps=3,
            final_fraction=0.1,
            decay_fraction=0.2,
        ),
        max_grad_norm=0.5,
        seed=7,
        checkpoints=folder / "checkpoints",
        checkpoint_every_steps=3,
        keep_checkpoints=2,
        guard=GuardSettings(spike_z=8.0, window_steps=10, max_skipped_steps=3),
        sink=LoudSink(),
    )
    if rank() == 0:
        save_file(model.state_dict(), folder / "final.safetensors")
        print(f"losses {result.losses[0]:.6f} {result.losses[-1]:.6f}", flush=True)


if __name__ == "__main__":
    for name in sys.argv[3:]:
        main(Path(name), int(sys.argv[1]), int(sys.argv[2]))
