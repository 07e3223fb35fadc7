"""What compressors and an n-gram model need for the documents the language models are measured on."""

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer

from components.errors import DataError
from components.evaluate.compressors import (
    primed_zstd_bits,
    training_text,
    xz_bits,
    zstd_bits,
)
from components.evaluate.kneser_ney import fit
from components.evaluate.params import CompressorParams, NgramParams
from components.measure.bits import open_spread, spread_documents
from components.measure.choosing import Array
from components.measure.ratio import ratio_with_error
from components.shards import iter_batches
from components.tokens import TokenDocuments

Figure = tuple[float, float | None]
"""A value and its standard error; None where there is none to state."""


class HeldOut(NamedTuple):
    """The test documents that bits per byte are measured on."""

    documents: list[Any]
    """Token ids, with both markers."""
    texts: list[bytes]
    num_bytes: Array


def read_held_out(tokenize: Path, dedup: Path, split: str, max_tokens: int) -> HeldOut:
    """Documents spread over a split, with their text. DataError if the two stages disagree."""
    tokens = TokenDocuments(tokenize / "tokens" / split)
    documents, num_bytes = open_spread(tokens, max_tokens)
    ids = [tokens.ids[i] for i in spread_documents(tokens.num_tokens, max_tokens)]
    wanted = set(ids)
    found: dict[str, bytes] = {}
    for batch in iter_batches(dedup / "documents" / split, ["id", "text"]):
        for name, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if name in wanted:
                found[name] = text.encode("utf-8", "surrogatepass")
    if len(found) < len(ids):
        missing = next(name for name in ids if name not in found)
        raise DataError(
            f"document {missing} of tokenize's {split} split is not in dedup's",
            "run tokenize again: dedup's output has changed since",
        )
    return HeldOut(documents, [found[name] for name in ids], num_bytes)


def compressor_figures(
    held_out: HeldOut, train_documents: Path, params: CompressorParams
) -> dict[str, Figure]:
    """Bits per byte of xz and zstd, each alone, and of zstd primed with the training text."""
    texts, total = held_out.texts, float(held_out.num_bytes.sum())
    batches = iter_batches(train_documents, ["text"])
    dictionary = training_text(
        (text for batch in batches for text in batch.column(0).to_pylist()),
        params.max_dictionary_mb << 20,
    )
    primed = primed_zstd_bits(texts, dictionary, params.zstd_level)
    return {
        "xz": (xz_bits(texts, params.xz_preset) / total, None),
        "zstd": (zstd_bits(texts, params.zstd_level) / total, None),
        "zstd_primed": ratio_with_error(primed, held_out.num_bytes),
    }


def ngram_figure(held_out: HeldOut, tokenize: Path, params: NgramParams) -> Figure:
    """Bits per byte of a Kneser-Ney model of the training tokens."""
    tokens = TokenDocuments(tokenize / "tokens" / "train")
    documents, _ = open_spread(tokens, params.max_train_tokens)
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenize / "tokenizer", local_files_only=True)
    model = fit(documents, len(tokenizer), params.order)
    return ratio_with_error(model.document_bits(held_out.documents), held_out.num_bytes)
