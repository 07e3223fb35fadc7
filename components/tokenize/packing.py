"""Encoded documents on their way between machines: a table with a row for each."""

import numpy as np
import pyarrow as pa

from components.piece_files import Packed
from components.sharing import Form
from components.tokens import EncodedDocuments


def pack(encoded: EncodedDocuments) -> Packed:
    ends = np.cumsum([0, *encoded.num_tokens], dtype=np.int64)
    tokens = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(encoded.tokens))
    columns = {
        "id": pa.array(encoded.ids, pa.string()),
        "tokens": tokens,
        "num_bytes": pa.array(encoded.num_bytes, pa.int64()),
        "num_words": pa.array(encoded.num_words, pa.int64()),
    }
    return Packed([pa.table(columns)], None)


def unpack(packed: Packed) -> EncodedDocuments:
    (table,) = packed.tables
    tokens = table["tokens"].combine_chunks()
    return EncodedDocuments(
        ids=table["id"].to_pylist(),
        tokens=tokens.flatten().to_numpy(),
        num_tokens=tokens.value_lengths().to_pylist(),
        num_bytes=table["num_bytes"].to_pylist(),
        num_words=table["num_words"].to_pylist(),
    )


ENCODED = Form("encoded", pack, unpack)
