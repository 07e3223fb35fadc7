"""Learn the vocabulary, encode every document.

The vocabulary is learned from training documents alone: conversations repeat their words, and
held-out text must not shape it.
"""

import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import xxhash

from components.contract import Report, Share, Sink, StageIO
from components.errors import DataError
from components.schemas import SPLITS
from components.shards import count_rows, iter_batches
from components.sharing import hear, tell
from components.tokenize.agreement import check_agreement
from components.tokenize.convert import fast_tokenizer, save_tokenizer
from components.tokenize.encode import assist_encoding, encode_tables
from components.tokenize.params import TokenizeParams
from components.tokenize.train import train_sentencepiece
from components.tokens import UNKNOWN_ID, EncodedDocuments, TokenDocuments, write_tokens

TOKENIZER = "tokenizer.json"


def run(params: TokenizeParams, io: StageIO, sink: Sink) -> Report:
    began_at = time.perf_counter()
    documents = io.inputs["dedup"] / "documents"
    num_documents = {split: count_rows(documents / split) for split in SPLITS}
    for split, num in num_documents.items():
        if not num:
            raise DataError(
                f"{documents / split}: no document",
                "see the reports of ingest, clean and dedup for where they went; a small corpus "
                f"needs a larger ingest.split.{split}",
            )

    fraction = min(1.0, params.training_sample_mb * 1e6 / text_bytes(documents / "train"))
    sink.info(f"learning {params.vocab_size:,} pieces from {fraction:.0%} of the training text")
    model = train_sentencepiece(
        sample(documents / "train", fraction),
        vocab_size=params.vocab_size,
        coverage=params.character_coverage,
    )
    trained_s = time.perf_counter() - began_at
    tokenizer = fast_tokenizer(model)
    num_checked = check_agreement(model, tokenizer, sample(documents / "train", fraction))
    folder = io.out / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "sentencepiece.model").write_bytes(model)
    save_tokenizer(tokenizer, folder)
    tell(io.share, TOKENIZER, (folder / TOKENIZER).read_bytes())

    encoding_began_at = time.perf_counter()
    report: Report = {
        "vocab_size": tokenizer.get_vocab_size(),
        "training_sample_fraction": fraction,
        "num_texts_checked": num_checked,
    }
    tables = _tables(io)
    encoded = encode_tables(tables, folder / TOKENIZER, io.num_workers, io.share)
    parts = _with_progress(encoded, sum(num_documents.values()), sink)
    for table, group in groupby(parts, key=itemgetter(0)):
        tokens = io.out / "tokens" / table.name
        write_tokens(
            tokens,
            (part for _, part in group),
            vocab_size=params.vocab_size,
            tokens_per_shard=params.tokens_per_shard,
        )
        report[table.name] = counts(TokenDocuments(tokens))
        sink.info(f"{table.name}: {report[table.name]['num_tokens']:,} tokens")
    encoded_s = time.perf_counter() - encoding_began_at
    io.reports.mkdir(parents=True, exist_ok=True)
    plot_lengths(
        TokenDocuments(io.out / "tokens" / "train").num_tokens, io.reports / "document_lengths.png"
    )
    return report | {
        "trained_s": trained_s,
        "encoded_s": encoded_s,
        "elapsed_s": time.perf_counter() - began_at,
    }


def assist(params: TokenizeParams, io: StageIO, share: Share, sink: Sink) -> None:
    """Encode with the tokenizer that the leader trained."""
    assist_encoding(_tables(io), hear(share, TOKENIZER), io.num_workers, share, sink)


def _tables(io: StageIO) -> list[Path]:
    return [io.inputs["dedup"] / "documents" / split for split in SPLITS]


def text_bytes(documents: Path) -> int:
    """UTF-8 bytes of all texts."""
    return sum(
        pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0
        for batch in iter_batches(documents, ["text"])
    )


def sample(documents: Path, fraction: float) -> Iterator[str]:
    """Texts whose id's hash falls below `fraction`: the same ones wherever they lie."""
    for batch in iter_batches(documents, ["id", "text"]):
        for key, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if xxhash.xxh32_intdigest(key.encode()) < fraction * 2**32:
                yield text


def counts(documents: TokenDocuments) -> Report:
    """What a split holds: counts, and how well the vocabulary fits its text."""
    num_tokens = int(documents.num_tokens.sum())
    num_markers = 2 * len(documents)
    text_tokens = max(num_tokens - num_markers, 1)
    return {
        "num_documents": len(documents),
        "num_tokens": num_tokens,
        "num_bytes": int(documents.num_bytes.sum()),
        "num_unknown": sum(int(np.count_nonzero(ids == UNKNOWN_ID)) for ids in documents),
        "bytes_per_token": float(documents.num_bytes.sum()) / text_tokens,
        "tokens_per_word": text_tokens / max(int(documents.num_words.sum()), 1),
    }


def plot_lengths(num_tokens: npt.NDArray[np.int64], path: Path) -> None:
    """Histogram of document lengths in tokens, on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    top = max(int(num_tokens.max(initial=2)), 3)
    axes.hist(num_tokens, bins=np.geomspace(2, top, 60).tolist(), color="#3b6ea5")
    axes.set(xscale="log", xlabel="tokens in a document", ylabel="documents")
    axes.axvline(float(np.median(num_tokens)), color="black", linestyle="--", label="median")
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _with_progress(
    encoded: Iterable[tuple[Path, EncodedDocuments]], total: int, sink: Sink
) -> Iterator[tuple[Path, EncodedDocuments]]:
    done = 0
    for table, part in encoded:
        yield table, part
        done += len(part.ids)
        sink.progress(done, total, "documents")
