"""Next-token logits and loss over packed rows: several documents in one row, none sees another.

A row's `position_ids` restart at 0 where a document begins; that alone marks the boundary.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""Target of a position that counts for nothing: padding, a prompt, a document's last token."""


def hidden_states(
    model: Any, input_ids: Tensor, position_ids: Tensor, embeddings: Tensor | None = None
) -> Tensor:
    """Last hidden states (rows, length, width), after the final norm.

    Neither a mask nor a cache is passed: transformers then reads the boundaries from the
    positions and forbids attention across them. `embeddings` (rows, length, width) replace the
    input table's.
    """
    if embeddings is None:
        embeddings = model.model.embed_tokens(input_ids)
    output: Tensor = model.model(
        inputs_embeds=embeddings, position_ids=position_ids, use_cache=False
    ).last_hidden_state
    return output


def packed_logits(model: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """Logits (rows, length, vocabulary): at each position, of the token that follows it."""
    logits: Tensor = model.lm_head(hidden_states(model, input_ids, position_ids))
    return logits


def next_token_loss(
    model: Any,
    input_ids: Tensor,
    position_ids: Tensor,
    targets: Tensor,
    embeddings: Tensor | None = None,
) -> tuple[Tensor, int]:
    """Summed negative log-likelihood in nats, and how many targets it sums over.

    `targets` (rows, length) holds the token that follows each position, or IGNORED.
    """
    chosen = targets != IGNORED
    hidden = hidden_states(model, input_ids, position_ids, embeddings)[chosen]
    logits = model.lm_head(hidden).float()
    total = functional.cross_entropy(logits, targets[chosen], reduction="sum")
    return total, int(hidden.shape[0])
