"""How fast this machine could compute: the denominator of model FLOPs utilisation."""

import time

import torch

BF16_DENSE_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "B200": 2250.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A100": 312.0,
    "A10G": 70.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""NVIDIA's data sheets, bf16 (V100, T4: fp16) tensor cores without sparsity. First match wins."""


def peak_flops_per_s(device: torch.device) -> float | None:
    """FLOP/s of one device: a GPU's by its name (None if unknown), a CPU's measured by a matmul."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, tflops in BF16_DENSE_TFLOPS.items():
            if known in name:
                return tflops * 1e12
        return None
    return measured_flops_per_s()


def measured_flops_per_s(size: int = 1024, repeats: int = 40) -> float:
    """Best of several fp32 matmuls of `size` x `size` with torch's present number of threads."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(size, size, generator=generator)
    best_s = float("inf")
    for _ in range(repeats):
        began_at = time.perf_counter()
        torch.mm(matrix, matrix)
        best_s = min(best_s, time.perf_counter() - began_at)
    return 2 * size**3 / best_s


def model_flops_utilisation(
    tokens_per_s: float, flops_per_token: float, peak_flops_per_s: float
) -> float:
    """Share of the peak that went into the model's own arithmetic (arXiv 2204.02311, app. B)."""
    return tokens_per_s * flops_per_token / peak_flops_per_s
