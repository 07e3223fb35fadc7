"""An n-gram language model: interpolated modified Kneser-Ney over token ids.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1999), section
3.3: each order has three discounts, for n-grams seen once, twice and more often, estimated from
counts of counts; lower orders count in how many contexts a token was seen rather than how often.
Below the unigrams stands the uniform distribution. n-grams at a document's start begin with its
first token and keep their own counts, as in KenLM.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
UNSEEN = -1


@dataclass(frozen=True)
class Order:
    """The n-grams of one length. A context is the n-gram of one token less, by its number."""

    keys: Ints
    """Sorted: context number * vocabulary + last token; an n-gram's number is its place here."""
    discounted: Array
    """Count less the discount, over the context's total."""
    backoff: Array
    """Weight of the next lower order after each context."""


@dataclass(frozen=True)
class KneserNey:
    vocab_size: int
    orders: list[Order]
    """From unigrams up."""

    def document_bits(self, documents: Sequence[Any]) -> Array:
        """Bits for each document's tokens after the first; [D]."""
        tokens, age = joined(documents)
        probability = np.full(len(tokens), 1 / self.vocab_size)
        context = np.zeros(len(tokens), dtype=np.int64)  # of the order at hand, before each token
        for order_index, order in enumerate(self.orders):
            reaches = (age >= order_index) & (context != UNSEEN)
            number = np.full(len(tokens), UNSEEN)
            number[reaches] = find(order.keys, context[reaches] * self.vocab_size + tokens[reaches])
            seen = number != UNSEEN
            probability[reaches] *= order.backoff[context[reaches]]
            probability[seen] += order.discounted[number[seen]]
            # The next order's context of a token is this order's n-gram that ends before it.
            context = np.concatenate([[UNSEEN], number[:-1]])
        bits = -np.log2(probability)
        starts = np.flatnonzero(age == 0)
        bits[starts] = 0
        return np.asarray(np.add.reduceat(bits, starts))


def fit(documents: Sequence[Any], vocab_size: int, order: int) -> KneserNey:
    """Count and discount all n-grams of up to `order` tokens; no n-gram crosses documents.

    `documents` are arrays of token ids below `vocab_size`, each beginning with the same first
    token. Time and memory grow with the number of tokens times the order: about 25 bytes a token
    for each order, and 60 while it is made.
    """
    tokens, age = joined(documents)
    keys_of: list[Ints] = []
    counts_of: list[Ints] = []
    suffix_of: list[Ints] = []
    starts_of: list[NDArray[np.bool_]] = []
    context = np.zeros(len(tokens), dtype=np.int64)
    lower = np.zeros(len(tokens), dtype=np.int64)
    for length in range(1, order + 1):
        valid = np.flatnonzero(age >= length - 1)
        keys, first, inverse, counts = np.unique(
            context[valid] * vocab_size + tokens[valid],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        keys_of.append(keys)
        counts_of.append(counts)
        suffix_of.append(lower[valid[first]])
        starts_of.append(age[valid[first]] == length - 1)
        number = np.full(len(tokens), UNSEEN)
        number[valid] = inverse
        lower = number
        context = np.concatenate([[UNSEEN], number[:-1]])
    orders = []
    for index in range(order):
        counts = counts_of[index]
        if index + 1 < order:
            # In how many contexts: each n-gram one longer counts once for the n-gram it ends with.
            continued = np.bincount(suffix_of[index + 1], minlength=len(counts))
            counts = np.where(starts_of[index], counts, continued)
        num_contexts = len(keys_of[index - 1]) if index else 1
        orders.append(discount(keys_of[index], counts, vocab_size, num_contexts))
    return KneserNey(vocab_size, orders)


def discount(keys: Ints, counts: Ints, vocab_size: int, num_contexts: int) -> Order:
    """Take the discount off every count and give each context what it lost as its back-off weight."""
    counts_f = counts.astype(np.float64)
    taken = np.minimum(discounts(counts)[np.minimum(counts, 3)], counts_f)
    context = keys // vocab_size
    total = np.bincount(context, weights=counts_f, minlength=num_contexts)
    lost = np.bincount(context, weights=taken, minlength=num_contexts)
    followed = total > 0
    backoff = np.where(followed, lost / np.where(followed, total, 1), 1.0)
    return Order(keys, (counts_f - taken) / np.maximum(total[context], 1e-300), backoff)


def discounts(counts: Ints) -> Array:
    """D for a count of 0, 1, 2 and 3 or more (equation 26), from how many n-grams have each count.

    Where a count of counts is 0 (tiny corpora) the estimate means nothing, and every discount is
    the 0.5 that keeps the rest a distribution.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    if (n == 0).any():
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n[0] / (n[0] + 2 * n[1])
    estimate = [i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3)]
    return np.asarray(np.clip(np.array([0.0, *estimate]), 0.0, None), dtype=np.float64)


def joined(documents: Sequence[Any]) -> tuple[Ints, Ints]:
    """All tokens in a row, and how many tokens of its document stand before each."""
    tokens = np.concatenate([np.asarray(document, dtype=np.int64) for document in documents])
    lengths = np.array([len(document) for document in documents])
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return tokens, np.arange(len(tokens)) - starts


def find(keys: Ints, wanted: Ints) -> Ints:
    """The place of each wanted key in sorted `keys`, or UNSEEN."""
    if not len(keys):
        return np.full(len(wanted), UNSEEN)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, UNSEEN)
