"""Text to token ids over many processes, in the documents' order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from components.pool import map_ordered
from components.shards import read_shard, shard_paths
from components.tokens import END_OF_TEXT_ID, START_OF_TEXT_ID, EncodedDocuments, token_type

ROWS_PER_TASK = 1024


@dataclass(frozen=True)
class Slice:
    """Some rows of a Parquet shard: one piece of work."""

    path: Path
    begin: int
    end: int


def encode_tables(
    tables: Sequence[Path], tokenizer: Path, num_workers: int
) -> Iterator[tuple[Path, EncodedDocuments]]:
    """Encode tables of documents, one after the other, with the `tokenizer.json` at `tokenizer`.

    Yields each part with the table it is of. All tables share one pool of processes.
    """
    work = [part for table in tables for part in slices(table)]
    encoded = map_ordered(partial(encode_slice, tokenizer), work, num_workers)
    for part, documents in zip(work, encoded, strict=True):
        yield part.path.parent, documents


def slices(documents: Path) -> Iterator[Slice]:
    for path in shard_paths(documents):
        num_rows = pq.read_metadata(path).num_rows
        # A table without rows is still a piece of work, so that its folder is written.
        bounds = [*range(0, max(num_rows, 1), ROWS_PER_TASK), num_rows]
        yield from (Slice(path, begin, end) for begin, end in pairwise(bounds))


def encode_slice(tokenizer: Path, rows: Slice) -> EncodedDocuments:
    table = read_shard(rows.path, ["id", "text"]).slice(rows.begin, rows.end - rows.begin)
    texts = table.column("text").to_pylist()
    return encode_texts(load_tokenizer(tokenizer), table.column("id").to_pylist(), texts)


def encode_texts(tokenizer: Tokenizer, ids: list[str], texts: list[str]) -> EncodedDocuments:
    """Each text from <|startoftext|> to <|endoftext|>; what looks like a marker in it is text."""
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    documents = [(START_OF_TEXT_ID, *encoding.ids, END_OF_TEXT_ID) for encoding in encodings]
    lengths = [len(document) for document in documents]
    dtype = token_type(tokenizer.get_vocab_size())
    return EncodedDocuments(
        ids=ids,
        tokens=np.fromiter(chain.from_iterable(documents), dtype=dtype, count=sum(lengths)),
        num_tokens=lengths,
        num_bytes=[len(text.encode()) for text in texts],
        num_words=[len(text.split()) for text in texts],
    )


@lru_cache(maxsize=2)
def load_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json` that takes text as text: no special token is recognised in it."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer
