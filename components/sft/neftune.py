"""NEFTune: uniform noise on the embeddings while fine-tuning (arXiv 2310.05914, algorithm 1)."""

import torch
from torch import Tensor


def noisy(embeddings: Tensor, position_ids: Tensor, alpha: float) -> Tensor:
    """X + alpha / sqrt(L d) * U(-1, 1), drawn from torch's global generator.

    `embeddings` are (rows, length, d). L is the real length of the conversation that a position
    belongs to, not the row's: packed, each gets the noise it would get alone.
    """
    lengths = lengths_of_documents(position_ids).to(embeddings.dtype)
    half_width = alpha / (lengths * embeddings.shape[-1]).sqrt()
    noise = torch.rand_like(embeddings).mul_(2).sub_(1)
    return embeddings + noise * half_width.unsqueeze(-1)


def lengths_of_documents(position_ids: Tensor) -> Tensor:
    """For each position (rows, length), how many positions its document has in the row."""
    rows, length = position_ids.shape
    is_start = position_ids == 0
    document = is_start.cumsum(dim=1) - 1
    document = document + torch.arange(rows, device=position_ids.device).unsqueeze(1) * length
    sizes = torch.bincount(document.flatten(), minlength=rows * length)
    return sizes[document]
