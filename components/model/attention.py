"""Attention over packed rows that works on each document alone, so nothing is masked away.

Registered with transformers as `varlen`. On a GPU it is torch's variable-length flash attention; on
a CPU, one causal call for each document. Rows are laid end to end: the cost is that of the
documents, however long the rows are.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

VARLEN = "varlen"


def document_lengths(position_ids: Tensor) -> Tensor:
    """Lengths of the documents of packed rows, in order; each begins where a position is 0."""
    starts = (position_ids.flatten() == 0).nonzero().flatten()
    end = starts.new_tensor([position_ids.numel()])
    return torch.diff(starts, append=end)


def varlen_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    lengths: Tensor | list[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each document.

    `query` is (rows, heads, length, d), `key` and `value` (rows, kv heads, length, d); `lengths`
    add up to rows * length. Returns (rows, length, heads, d) in the type of `value`.
    """
    if lengths is None:
        raise ValueError("varlen attention is for packed rows; load the model with sdpa instead")
    rows, _heads, length, _size = query.shape
    # Under bf16 autocast RoPE, in fp32, makes queries and keys fp32 again, and values stay bf16. torch
    # casts them for sdpa and flex_attention, but not for this kernel, which refuses a mixture.
    query, key = query.to(value.dtype), key.to(value.dtype)
    q, k, v = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    if isinstance(lengths, Tensor):
        out = _on_gpu(q, k, v, lengths, longest=length, scaling=scaling)
    else:
        documents = zip(
            torch.split(q, lengths), torch.split(k, lengths), torch.split(v, lengths), strict=True
        )
        out = torch.cat([_one_document(*document, scaling=scaling) for document in documents])
    return out.view(rows, length, *out.shape[1:]), None


def _one_document(query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> Tensor:
    """(n, heads, d) each. A key's head is shared by its queries through a stride, not copied."""
    n, heads, size = query.shape
    kv_heads = key.shape[1]
    grouped = query.view(n, kv_heads, heads // kv_heads, size).permute(1, 2, 0, 3)
    keys, values = (
        tensor.transpose(0, 1).unsqueeze(1).expand(-1, heads // kv_heads, -1, -1)
        for tensor in (key, value)
    )
    out = functional.scaled_dot_product_attention(
        grouped, keys, values, is_causal=True, scale=scaling
    )
    return out.permute(2, 0, 1, 3).reshape(n, heads, size)


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, *, longest: int, scaling: float
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    bounds = functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    out: Any = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    attended: Tensor = out
    return attended


AttentionInterface.register(VARLEN, varlen_attention)
