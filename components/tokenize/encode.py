"""Text to token ids over many processes, in the documents' order."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from components.contract import Share, Sink
from components.shards import RowGroup, read_row_group, row_groups
from components.sharing import assist_map, map_shared
from components.tokenize.packing import ENCODED
from components.tokens import END_OF_TEXT_ID, START_OF_TEXT_ID, EncodedDocuments, token_type


def encode_tables(
    tables: Sequence[Path], tokenizer: Path, num_workers: int, share: Share | None = None
) -> Iterator[tuple[Path, EncodedDocuments]]:
    """Encode tables of documents, one after the other, with the `tokenizer.json` at `tokenizer`.

    Yields each part with the table it is of; none for a table without rows. All tables share one
    pool of processes; with a share, all machines.
    """
    work = groups_of(tables)
    encode = partial(encode_group, tokenizer)
    encoded = map_shared(encode, work, num_workers, share, ENCODED)
    for group, documents in zip(work, encoded, strict=True):
        yield group.path.parent, documents


def assist_encoding(
    tables: Sequence[Path], tokenizer: Path, num_workers: int, share: Share, sink: Sink
) -> None:
    """Encode for the machine that encodes these tables with the same tokenizer."""
    encode = partial(encode_group, tokenizer)
    assist_map(encode, groups_of(tables), num_workers, share, ENCODED, sink)


def groups_of(tables: Sequence[Path]) -> list[RowGroup]:
    return [group for table in tables for group in row_groups(table)]


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
