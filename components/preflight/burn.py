"""Measuring GPUs with torch: exact products on all at once, copies to the neighbour, bandwidth.

A child process (`python -m components.preflight.burn`), so that a GPU that hangs or crashes its
program is a finding. `burn` itself runs on any device of torch.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from components.preflight.children import end_with_parent
from components.preflight.matmul import Problem, digest, square_problem
from components.preflight.readings import Bandwidth, Matmul, Measurements

COPY_BYTES = 2**30
COPIES = 20


def burn(devices: Sequence[torch.device], size: int, burn_s: float) -> tuple[Matmul, ...]:
    """bf16 products on all devices side by side for `burn_s`, every element compared every time;
    then each product once more on the next device, where a copy took it.
    """
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    problem = square_problem(size)
    answers = [torch.from_numpy(problem.answer).to(device).bfloat16() for device in devices]
    with ThreadPoolExecutor(len(devices)) as pool:
        jobs = [
            pool.submit(_products, problem, answer, burn_s, index)
            for index, answer in enumerate(answers)
        ]
        done = [job.result() for job in jobs]
    figures = []
    for index, (figure, product) in enumerate(done):
        after = answers[(index + 1) % len(answers)]
        copied = product.to(after.device)
        figures.append(replace(figure, wrong=figure.wrong + _num_wrong(copied, after)))
    return tuple(figures)


def _products(problem: Problem, answer: Tensor, burn_s: float, index: int) -> tuple[Matmul, Tensor]:
    device = answer.device
    a = torch.from_numpy(problem.a).to(device).bfloat16()
    b = torch.from_numpy(problem.b).to(device).bfloat16()
    product = torch.empty_like(answer)
    rounds = wrong = 0
    multiplying_s = 0.0
    torch.mm(a, b, out=product)  # the first pays for loading the kernels
    begin = time.monotonic()
    while not rounds or time.monotonic() - begin < burn_s:
        _synchronise(device)
        start = time.perf_counter()
        torch.mm(a, b, out=product)
        _synchronise(device)
        multiplying_s += time.perf_counter() - start
        wrong += _num_wrong(product, answer)
        rounds += 1
    tflops = rounds * problem.flop / multiplying_s / 1e12
    told = digest(product.float().cpu().numpy())
    return Matmul(index, "bf16", rounds, wrong, told, digest(problem.answer), tflops), product


def _num_wrong(product: Tensor, answer: Tensor) -> int:
    return int((product != answer).sum().item())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bandwidth(device: torch.device, index: int, num_bytes: int = COPY_BYTES) -> Bandwidth:
    """Bytes read plus bytes written by copies within a device's memory."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.zeros_like(source)
    target.copy_(source)
    _synchronise(device)
    begin = time.perf_counter()
    for _ in range(COPIES):
        target.copy_(source)
    _synchronise(device)
    elapsed_s = time.perf_counter() - begin
    return Bandwidth(index, 2 * COPIES * num_bytes / elapsed_s / 1e9)


def measured(num_gpus: int, size: int, burn_s: float) -> Measurements:
    """All figures of the GPUs that torch sees, or why there are none."""
    if not torch.cuda.is_available():
        return Measurements(gpu_fault="torch finds no usable GPU (driver, CUDA or image)")
    if torch.cuda.device_count() != num_gpus:
        return Measurements(gpu_fault=f"torch sees {torch.cuda.device_count()} of {num_gpus} GPUs")
    devices = [torch.device("cuda", index) for index in range(num_gpus)]
    try:
        speeds = tuple(bandwidth(device, index) for index, device in enumerate(devices))
        torch.cuda.empty_cache()
        return Measurements(bandwidths=speeds, matmuls=burn(devices, size, burn_s))
    except RuntimeError as error:  # CUDA's faults, out of memory among them
        return Measurements(gpu_fault=str(error).splitlines()[0][:200])


def main(arguments: Sequence[str]) -> None:
    """Print Measurements as JSON."""
    end_with_parent()
    parser = argparse.ArgumentParser(description="Measure this node's GPUs.")
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--burn-s", type=float, required=True)
    asked = parser.parse_args(arguments)
    body: dict[str, Any] = asdict(measured(asked.gpus, asked.size, asked.burn_s))
    print(json.dumps(body), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
