"""Next-token logits and loss over packed rows: several documents in one row, none sees another.

A row's `position_ids` restart at 0 where a document begins; that alone marks the boundary.
"""

from typing import Any

from torch import Tensor

from components.model.attention import VARLEN, document_lengths
from components.model.cross_entropy import linear_cross_entropy

IGNORED = -100
"""Target of a position that counts for nothing: padding, a prompt, a document's last token."""


def hidden_states(
    model: Any, input_ids: Tensor, position_ids: Tensor, embeddings: Tensor | None = None
) -> Tensor:
    """Last hidden states (rows, length, width), after the final norm.

    Neither a mask nor a cache is passed: transformers (or `varlen`, see
    `components.model.attention`) then reads the boundaries from the positions and forbids
    attention across them. `embeddings` (rows, length, width) replace the
    input table's.
    """
    if embeddings is None:
        embeddings = model.model.embed_tokens(input_ids)
    boundaries: dict[str, Any] = {}
    if model.config._attn_implementation == VARLEN:
        lengths = document_lengths(position_ids)
        boundaries = {"lengths": lengths if lengths.is_cuda else lengths.tolist()}
    output: Tensor = model.model(
        inputs_embeds=embeddings, position_ids=position_ids, use_cache=False, **boundaries
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
    total = linear_cross_entropy(hidden, model.lm_head.weight, targets[chosen])
    return total, int(hidden.shape[0])
