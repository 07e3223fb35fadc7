"""Text to token ids over many processes, in the documents' order."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from components.pool import map_ordered
from components.shards import RowGroup, read_row_group, row_groups
from components.tokens import END_OF_TEXT_ID, START_OF_TEXT_ID, EncodedDocuments, token_type


def encode_tables(
    tables: Sequence[Path], tokenizer: Path, num_workers: int
) -> Iterator[tuple[Path, EncodedDocuments]]:
    """Encode tables of documents, one after the other, with the `tokenizer.json` at `tokenizer`.

    Yields each part with the table it is of; none for a table without rows. All tables share one
    pool of processes.
    """
    work = [group for table in tables for group in row_groups(table)]
    encoded = map_ordered(partial(encode_group, tokenizer), work, num_workers)
    for group, documents in zip(work, encoded, strict=True):
        yield group.path.parent, documents


def encode_group(tokenizer: Path, group: RowGroup) -> EncodedDocuments:
    """Reads its own rows alone: a shard of a large corpus would not fit into every worker."""
    table = read_row_group(group, ["id", "text"])
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
