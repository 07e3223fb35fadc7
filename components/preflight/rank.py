"""One rank of the pre-check's all-reduce: a child process, `python -m components.preflight.rank`.

Says on its last line what it measured, or that a peer is missing, or that it failed itself.
"""

import argparse
import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from components.preflight.children import end_with_parent
from components.preflight.gang import RankFigure

PERIOD = 8
LOOK_S = 0.5
ABORT_S = 120.0


@dataclass(frozen=True)
class Job:
    """What this rank is asked to do."""

    rank: int
    num_ranks: int
    local_rank: int
    address: str
    port: int
    backend: str
    num_bytes: int
    rounds: int
    timeout_s: float


def measure(job: Job) -> RankFigure:
    """Meet the others, sum, compare, and look at the clock together."""
    try:
        store = _meet(job)
    except (dist.DistError, OSError, RuntimeError) as error:
        return RankFigure(lost=f"not all of {job.num_ranks} ranks met: {_line(error)}")
    cuda = job.backend == "nccl"
    device = torch.device("cuda", job.local_rank) if cuda else torch.device("cpu")
    try:
        if cuda:
            torch.cuda.set_device(device)
        dist.init_process_group(
            job.backend,
            store=store,
            rank=job.rank,
            world_size=job.num_ranks,
            # The pre-check's own patience ends first: at this one NCCL would abort the process.
            timeout=timedelta(seconds=job.timeout_s + ABORT_S),
        )
        return _figure(job, device)
    except (dist.DistError, RuntimeError) as error:
        if "CUDA error" in str(error) or isinstance(error, torch.OutOfMemoryError):
            return RankFigure(fault=_line(error))
        return RankFigure(lost=f"rank {job.rank} lost its peers: {_line(error)}")


def _meet(job: Job) -> Any:
    """Everyone at rank 0's store. Its name may not resolve before its pod runs."""
    deadline = time.monotonic() + job.timeout_s
    while job.rank != 0 and time.monotonic() < deadline:
        try:
            socket.getaddrinfo(job.address, job.port)
            break
        except socket.gaierror:
            time.sleep(LOOK_S)
    left = timedelta(seconds=max(1.0, deadline - time.monotonic()))
    return TCPStore(job.address, job.port, job.num_ranks, job.rank == 0, left)


def _figure(job: Job, device: torch.device) -> RankFigure:
    numbers = torch.arange(1, PERIOD + 1, dtype=torch.float32, device=device)
    pattern = numbers.repeat(job.num_bytes // 4 // PERIOD)
    summed = pattern * (job.rank + 1)
    dist.all_reduce(summed)
    wrong = _num_wrong(summed, pattern, job.num_ranks)
    summed.zero_()  # sums of sums would overflow; zeros travel as slowly
    for _ in range(max(1, job.rounds // 4)):
        dist.all_reduce(summed)
    _synchronise(device)
    dist.barrier()
    begin = time.perf_counter()
    for _ in range(job.rounds):
        dist.all_reduce(summed)
    _synchronise(device)
    elapsed_s = time.perf_counter() - begin
    summed.copy_(pattern * (job.rank + 1))
    dist.all_reduce(summed)
    wrong += _num_wrong(summed, pattern, job.num_ranks)
    bytes_per_s = job.rounds * summed.numel() * 4 / elapsed_s
    bus = bytes_per_s * 2 * (job.num_ranks - 1) / job.num_ranks / 1e9
    return RankFigure(bus_gb_per_s=bus, wrong=wrong, skew_ms=_skew_ms(job.num_ranks, device))


def _num_wrong(summed: Tensor, pattern: Tensor, num_ranks: int) -> int:
    """Against (1 + 2 + ... + n) times the pattern: small integers, exact in any order."""
    return int((summed != pattern * (num_ranks * (num_ranks + 1) // 2)).sum().item())


def _skew_ms(num_ranks: int, device: torch.device) -> float:
    """This rank's clock minus the median of all, as they come out of a barrier."""
    dist.barrier()
    mine = torch.tensor([time.time()], dtype=torch.float64, device=device)
    clocks = [torch.zeros_like(mine) for _ in range(num_ranks)]
    dist.all_gather(clocks, mine)
    return float((mine - torch.cat(clocks).median()).item() * 1000)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def main(arguments: Sequence[str]) -> None:
    """Print a RankFigure as JSON."""
    end_with_parent()
    parser = argparse.ArgumentParser(description="One rank of the pre-check's all-reduce.")
    for name, kind in Job.__annotations__.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    figure = measure(Job(**vars(parser.parse_args(arguments))))
    print(json.dumps(asdict(figure)), flush=True)
    if dist.is_initialized() and figure.bus_gb_per_s is not None:
        dist.barrier()  # rank 0 keeps the store until all have done
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
