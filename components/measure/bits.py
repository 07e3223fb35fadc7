"""How many bits a language model needs for held-out documents.

A code for whole documents: every token after the first is paid for, <|endoftext|> too, and each
document is coded by itself. Divided by the text's bytes it compares models with any tokenizer, and
compressors.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from components.model.cross_entropy import CHUNK_LOGITS
from components.model.packed import IGNORED, hidden_states
from components.model.rows import PAD_ID, batches_by_length
from components.tokens import TokenDocuments

BITS_PER_NAT = 1 / math.log(2)
Array = NDArray[np.float64]


class Window(NamedTuple):
    """Inputs `begin:end` of a document; those from `begin + seen` on are asked for the next token."""

    document: int
    begin: int
    end: int
    seen: int


def windows(num_tokens: Sequence[int], context: int, stride: int) -> list[Window]:
    """Rows of at most `context` inputs that together predict each token after a document's first.

    A longer document is read in rows `stride` apart, each predicting what no row before it has:
    past the first row every token sees at least `context - stride` tokens before it.
    """
    result = []
    for document, length in enumerate(num_tokens):
        num_inputs, predicted = length - 1, 0
        begin = 0
        while predicted < num_inputs:
            end = min(begin + context, num_inputs)
            result.append(Window(document, begin, end, predicted - begin))
            predicted = end
            begin += stride
    return result


@torch.inference_mode()
def document_bits(
    model: Any,
    documents: Sequence[Any],
    *,
    context: int,
    stride: int,
    max_tokens_per_batch: int = 8192,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Array:
    """Bits for each document's tokens after the first; [D]. A document is an array of token ids.

    `on_batch` is told how many tokens of how many are done.
    """
    rows = windows([len(document) for document in documents], context, stride)
    lengths = [row.end - row.begin for row in rows]
    bits = torch.zeros(len(documents), dtype=torch.float64)
    done = 0
    for batch in batches_by_length(lengths, max_tokens_per_batch):
        width = max(lengths[row] for row in batch)
        inputs = torch.full((len(batch), width), PAD_ID)
        targets = torch.full((len(batch), width), IGNORED)
        for place, row in enumerate(batch):
            window = rows[row]
            ids = torch.from_numpy(
                np.asarray(documents[window.document][window.begin : window.end + 1], np.int64)
            )
            inputs[place, : lengths[row]] = ids[:-1]
            targets[place, window.seen : lengths[row]] = ids[1 + window.seen :]
        positions = torch.arange(width, device=model.device).expand(len(batch), width)
        hidden = hidden_states(model, inputs.to(model.device), positions)
        chosen = targets != IGNORED
        nats = token_nats(
            model.lm_head, hidden[chosen.to(model.device)], targets[chosen].to(model.device)
        ).cpu()
        which = torch.tensor([rows[row].document for row in batch])
        owner = which[:, None].expand_as(chosen)[chosen]
        bits.index_add_(0, owner, nats.double() * BITS_PER_NAT)
        done += sum(lengths[row] for row in batch)
        on_batch(done, sum(lengths))
    return bits.numpy()


def token_nats(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target [n] from hidden states [n, d]; [n], fp32.

    Logits are made for so many tokens at a time that they stay in the processor's cache, and in
    memory with any vocabulary.
    """
    rows = max(1, CHUNK_LOGITS[hidden.device.type] // head.out_features)
    return torch.cat(
        [
            functional.cross_entropy(
                head(hidden[begin : begin + rows]).float(),
                targets[begin : begin + rows],
                reduction="none",
            )
            for begin in range(0, len(hidden), rows)
        ]
    )


def spread_documents(num_tokens: NDArray[np.int64], max_tokens: int) -> list[int]:
    """Documents spread evenly over a split, of together about `max_tokens` tokens; at least one.

    Every k-th document, with the smallest k that keeps within the limit.
    """
    total = int(num_tokens.sum())
    every = max(1, math.ceil(total / max_tokens))
    while every < len(num_tokens) and int(num_tokens[::every].sum()) > max_tokens:
        every += 1
    return list(range(0, len(num_tokens), every))


def open_spread(documents: TokenDocuments, max_tokens: int) -> tuple[list[Any], Array]:
    """`spread_documents` of a split: their token ids, and the bytes of each one's text."""
    chosen = spread_documents(documents.num_tokens, max_tokens)
    return [documents[i] for i in chosen], documents.num_bytes[chosen].astype(np.float64)
