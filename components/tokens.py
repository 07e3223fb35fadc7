"""Special tokens, and token shards: how encoded documents lie on disk, memory-mapped.

A folder of `part-00000.bin`, ... holds token ids (little endian, 16 bits if the vocabulary allows,
else 32), document after document, each from <|startoftext|> to <|endoftext|>. `index/` is a
Parquet table of the documents in the same order; `tokens.json`, written last, says how much there
must be.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.errors import DataError
from components.shards import ShardWriter, read_table

UNKNOWN_ID = 0
START_OF_TEXT_ID = 1
END_OF_TEXT_ID = 2
IM_START_ID = 6
IM_END_ID = 7
IM_SEP_ID = 8

SPECIAL_TOKENS = (
    "<unk>",
    "<|startoftext|>",
    "<|endoftext|>",
    "<|reserved_0|>",
    "<|reserved_1|>",
    "<|reserved_2|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
)
"""In the order of their ids, which are Yi's (arXiv 2403.04652); 3 to 5 are kept free for that."""

INDEX = pa.schema(
    [
        ("id", pa.string()),
        ("num_tokens", pa.int64()),  # with the two markers
        ("num_bytes", pa.int64()),  # of the text in UTF-8
        ("num_words", pa.int64()),  # between white space
    ]
)
INDEX_ROWS_PER_SHARD = 1 << 20

TokenArray = npt.NDArray[np.unsignedinteger[npt.NBitBase]]


def token_type(vocab_size: int) -> np.dtype[np.unsignedinteger[npt.NBitBase]]:
    """The narrowest of uint16 and uint32 that holds every id, little endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class EncodedDocuments:
    """Some documents in a row, as an encoder hands them over."""

    ids: list[str]
    tokens: TokenArray
    num_tokens: list[int]
    num_bytes: list[int]
    num_words: list[int]


def write_tokens(
    folder: Path, encoded: Iterable[EncodedDocuments], *, vocab_size: int, tokens_per_shard: int
) -> int:
    """Write shards of at least `tokens_per_shard` tokens, cut between documents; count tokens.

    Where a shard ends depends on the documents alone, not on how they were handed over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = token_type(vocab_size)
    shard_tokens: list[int] = []
    room = 0
    with ExitStack() as files, ShardWriter(folder / "index", INDEX, INDEX_ROWS_PER_SHARD) as index:
        for part in encoded:
            index.write(
                pa.table([part.ids, part.num_tokens, part.num_bytes, part.num_words], schema=INDEX)
            )
            begin = 0
            for length in part.num_tokens:
                if room <= 0:
                    files.close()
                    path = folder / f"part-{len(shard_tokens):05d}.bin"
                    file = files.enter_context(path.open("wb"))
                    shard_tokens.append(0)
                    room = tokens_per_shard
                file.write(part.tokens[begin : begin + length].astype(dtype, copy=False).data)
                shard_tokens[-1] += length
                room -= length
                begin += length
    head = {"dtype": dtype.str, "shard_tokens": shard_tokens, "num_documents": index.num_rows}
    (folder / "tokens.json").write_text(json.dumps(head) + "\n", encoding="utf-8")
    return sum(shard_tokens)


class TokenDocuments(Sequence[TokenArray]):
    """The documents of a folder, read through a memory map: opening costs the index alone."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError if anything is missing, cut off or contradicts the index."""
        try:
            head = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
            dtype, sizes = np.dtype(head["dtype"]), list(head["shard_tokens"])
            num_documents = int(head["num_documents"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(folder / "tokens.json", "missing or not readable") from error
        table = read_table(folder / "index")
        self.ids: list[str] = table.column("id").to_pylist()
        self.num_tokens = table.column("num_tokens").to_numpy()
        self.num_bytes = table.column("num_bytes").to_numpy()
        self.num_words = table.column("num_words").to_numpy()
        if len(self.ids) != num_documents or int(self.num_tokens.sum()) != sum(sizes):
            raise _damaged(folder, "the index and the shards disagree")
        self._shards = [
            _map_shard(folder / f"part-{number:05d}.bin", dtype, size)
            for number, size in enumerate(sizes)
        ]
        self._shard_begins = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._ends = np.cumsum(self.num_tokens, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TokenArray:  # type: ignore[override]
        """Token ids of one document, markers included; a view of the file, read-only."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        end = int(self._ends[index])
        begin = end - int(self.num_tokens[index])
        shard = int(np.searchsorted(self._shard_begins, begin, side="right")) - 1
        offset = int(self._shard_begins[shard])
        return self._shards[shard][begin - offset : end - offset]


def _map_shard(path: Path, dtype: np.dtype[np.generic], num_tokens: int) -> TokenArray:
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise _damaged(path, "missing") from error
    if num_bytes != num_tokens * dtype.itemsize:
        raise _damaged(path, f"{num_bytes} bytes, {num_tokens * dtype.itemsize} expected")
    mapped: TokenArray = np.memmap(path, dtype=dtype, mode="r")
    return mapped


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}", "restore it with `dvc checkout`, or run tokenize again")
