"""What goes to another machine and back is what it was."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from components.piece_files import read_packed, write_packed
from components.tokenize.packing import pack, unpack
from components.tokens import EncodedDocuments, token_type


@pytest.mark.parametrize("vocab_size", [1 << 10, 1 << 17])
@pytest.mark.parametrize("num_tokens", [[3, 2, 4], [2], []])
def test_encoded_documents(tmp_path: Path, vocab_size: int, num_tokens: list[int]) -> None:
    ids = [f"é{number}" for number in range(len(num_tokens))]
    tokens = np.arange(sum(num_tokens), dtype=token_type(vocab_size)) + vocab_size // 2
    before = EncodedDocuments(ids, tokens, num_tokens, [9] * len(ids), [1] * len(ids))
    write_packed(tmp_path / "piece", pack(before))
    after = unpack(read_packed(tmp_path / "piece"))
    assert after.tokens.dtype == tokens.dtype
    assert np.array_equal(after.tokens, tokens)
    assert asdict(after) | {"tokens": 0} == asdict(before) | {"tokens": 0}
