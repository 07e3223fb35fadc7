"""Training tokens/s against transformers' Trainer: same model, same packed rows, same process.

python -m benchmarks.train                                    # the demo's model, fp32
python -m benchmarks.train --size 125m --row-length 2048 --rows 32 --compile   # on a GPU, bf16
python -m benchmarks.train ... --compile both --attention varlen flex sdpa     # all variants
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from components.metrics import QuietSink
from components.model.llama import (
    build_model,
    default_device,
    flops_per_token,
    llama_config,
    num_parameters,
)
from components.model.packed import IGNORED
from components.pretrain.stage import language_loss
from components.train.guard import GuardSettings
from components.train.hardware import model_flops_utilisation, peak_flops_per_s
from components.train.loop import train
from components.train.packing import batch_of, micro_batches, pack
from components.train.update import AdamWSettings

SIZES = {
    # vocabulary, width, SwiGLU width, layers, heads, kv heads
    "demo": (4096, 128, 320, 3, 4, 2),
    "125m": (32768, 768, 2048, 12, 12, 4),
    "350m": (32768, 1024, 2816, 24, 16, 4),
}
WARMUP_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--row-length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--attention", nargs="+", choices=("sdpa", "varlen", "flex"), default=["varlen"]
    )
    parser.add_argument(
        "--their-attention", nargs="+", choices=("sdpa", "flex"), default=["sdpa"], help="Trainer's"
    )
    parser.add_argument(
        "--compile", nargs="?", const="yes", choices=("no", "yes", "both"), default="no"
    )
    arguments = parser.parse_args()

    vocabulary = SIZES[arguments.size][0]
    rng = np.random.default_rng(0)
    # Lengths as in the demo's corpus: a median of 150 tokens and a long tail.
    lengths = np.clip(rng.lognormal(5.0, 0.9, 20_000), 8, 4096).astype(np.int64)
    pieces = [rng.integers(9, vocabulary, length) for length in lengths]
    packing = pack(lengths, arguments.row_length, seed=0)
    num_steps = arguments.steps + WARMUP_STEPS
    rows = np.arange(num_steps * arguments.rows) % len(packing.rows)
    batches = [
        batch_of(packing, part, pieces.__getitem__) for part in micro_batches(rows, arguments.rows)
    ]
    device = default_device()
    peak = peak_flops_per_s(device)
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU", torch.__version__)
    for run, attentions in ((ours, arguments.attention), (theirs, arguments.their_attention)):
        for attention in attentions:
            for compiled in {"no": [False], "yes": [True]}.get(arguments.compile, [False, True]):
                forget()
                model = new_model(arguments.size, arguments.row_length, attention)
                rate = arguments.row_length * arguments.rows / run(model, batches, compiled)
                flops = flops_per_token(model, packing.mean_attended)
                mfu = f"{model_flops_utilisation(rate, flops, peak):.1%}" if peak else "unknown"
                how = f"{run.__name__:6s} {attention:6s} {'compiled' if compiled else 'plain':8s}"
                print(f"{how} {rate:9,.0f} tokens/s  MFU {mfu}{memory()}", flush=True)
                size = num_parameters(model)
                del model
    print(f"{arguments.size}: {size:,} parameters, {flops / 1e9:.3f} GFLOP a token")


def forget() -> None:
    """What an earlier variant compiled, and the memory that it held."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory() -> str:
    """The most that tensors took on the GPU since `forget`."""
    if not torch.cuda.is_available():
        return ""
    return f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def new_model(size: str, max_length: int, attention: Any) -> Any:
    vocabulary, width, swiglu, layers, heads, kv_heads = SIZES[size]
    config = llama_config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=swiglu,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        max_length=max_length,
        rope_theta=10000.0,
        norm_eps=1e-5,
    )
    return build_model(config, seed=0, attention=attention)


def ours(model: Any, batches: list[dict[str, Tensor]], compiled: bool) -> float:
    """Median seconds of a step of our loop."""
    if compiled:
        model.model.compile()
    moments: list[float] = []

    class Clock(QuietSink):
        def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
            moments.append(now())

    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            lambda step: [batches[step]],
            language_loss,
            num_steps=len(batches),
            optimiser=AdamWSettings(0.9, 0.95, 1e-8, 0.1),
            schedule=lambda step: 1e-3,
            max_grad_norm=1.0,
            seed=0,
            checkpoints=Path(folder),
            checkpoint_every_steps=1 << 30,
            keep_checkpoints=1,
            guard=GuardSettings(spike_z=100.0, window_steps=50, max_skipped_steps=0),
            sink=Clock(),
        )
    return float(np.median(np.diff(moments)[WARMUP_STEPS - 1 :]))


def theirs(model: Any, batches: list[dict[str, Tensor]], compiled: bool) -> float:
    """Median seconds of a step of transformers' Trainer, fed the same rows."""
    rows = [
        {name: tensor[row] for name, tensor in as_labels(batch).items()}
        for batch in batches
        for row in range(batch["input_ids"].shape[0])
    ]
    moments: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            moments.append(now())

    on_gpu = default_device().type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=len(batches),
            per_device_train_batch_size=batches[0]["input_ids"].shape[0],
            learning_rate=1e-3,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=on_gpu,
            use_cpu=not on_gpu,
            torch_compile=compiled,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=on_gpu,
        )
        Trainer(model=model, args=settings, train_dataset=rows, callbacks=[Clock()]).train()  # type: ignore[arg-type]
    return float(np.median(np.diff(moments)[WARMUP_STEPS - 1 :]))


def now() -> float:
    """Seconds, once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def as_labels(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Trainer shifts labels itself: the label of a position is its own token, if it was a target."""
    labels = torch.full_like(batch["targets"], IGNORED)
    labels[:, 1:] = batch["targets"][:, :-1]
    return {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "labels": labels,
    }


if __name__ == "__main__":
    main()
