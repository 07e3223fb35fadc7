from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import DataError
from components.tokens import (
    END_OF_TEXT_ID,
    IM_END_ID,
    IM_SEP_ID,
    IM_START_ID,
    SPECIAL_TOKENS,
    START_OF_TEXT_ID,
    EncodedDocuments,
    TokenDocuments,
    token_type,
    write_tokens,
)


def encoded(documents: list[list[int]], first: int = 0, dtype: str = "<u2") -> EncodedDocuments:
    return EncodedDocuments(
        ids=[f"{first + index:032x}" for index in range(len(documents))],
        tokens=np.array([token for document in documents for token in document], dtype=dtype),
        num_tokens=[len(document) for document in documents],
        num_bytes=[3 * len(document) for document in documents],
        num_words=[1] * len(documents),
    )


def written(folder: Path) -> Path:
    write_tokens(
        folder, [encoded([[1, 10, 2], [1, 11, 12, 2]])], vocab_size=300, tokens_per_shard=3
    )
    return folder


def test_special_tokens_have_the_ids_of_yi() -> None:
    named = {START_OF_TEXT_ID: 1, END_OF_TEXT_ID: 2, IM_START_ID: 6, IM_END_ID: 7, IM_SEP_ID: 8}
    assert all(got == want for got, want in named.items())
    assert SPECIAL_TOKENS[START_OF_TEXT_ID] == "<|startoftext|>"
    assert SPECIAL_TOKENS[IM_END_ID] == "<|im_end|>"


@settings(max_examples=15, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.integers(0, 65_535), min_size=1, max_size=9), min_size=1, max_size=12
    ),
    cut=st.integers(0, 12),
    tokens_per_shard=st.integers(1, 30),
)
def test_documents_come_back_and_shards_do_not_depend_on_how_they_were_handed_over(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    cut: int,
    tokens_per_shard: int,
) -> None:
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    write_tokens(whole, [encoded(documents)], vocab_size=65_536, tokens_per_shard=tokens_per_shard)
    halves = [encoded(documents[:cut]), encoded(documents[cut:], first=len(documents[:cut]))]
    write_tokens(parts, halves, vocab_size=65_536, tokens_per_shard=tokens_per_shard)

    assert [document.tolist() for document in TokenDocuments(whole)] == documents
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (parts / name).read_bytes() for name in names)


def test_the_index_is_written_while_documents_come(tmp_path: Path) -> None:
    sizes: list[int] = []

    def parts() -> Iterator[EncodedDocuments]:
        for first in range(0, 8000, 2000):
            yield encoded([[1, 10, 2]] * 2000, first)
            sizes.append((tmp_path / "index" / "part-00000.parquet").stat().st_size)

    write_tokens(tmp_path, parts(), vocab_size=300, tokens_per_shard=10_000)
    assert sizes == sorted(set(sizes))  # it grows with every part: none is kept for the end
    assert sizes[0] > 1000  # a whole row group lies on disk before the second part is asked for
    assert TokenDocuments(tmp_path).ids == [f"{number:032x}" for number in range(8000)]


def test_ids_above_16_bits_take_32() -> None:
    assert token_type(65_536).itemsize == 2
    assert token_type(65_537).itemsize == 4


@pytest.mark.parametrize("change", [-2, -1, 1, 2])
def test_a_shard_of_another_size_is_refused(tmp_path: Path, change: int) -> None:
    folder = written(tmp_path / "tokens")
    shard = folder / "part-00001.bin"
    data = shard.read_bytes()
    shard.write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    with pytest.raises(DataError, match=rf"part-00001.bin: {8 + change} bytes, 8 expected"):
        TokenDocuments(folder)


@pytest.mark.parametrize("name", ["part-00000.bin", "tokens.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "tokens")
    (folder / name).unlink()
    with pytest.raises(DataError, match=name):
        TokenDocuments(folder)


def test_an_index_of_other_documents_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "tokens")
    other = tmp_path / "other"
    write_tokens(other, [encoded([[1, 2]])], vocab_size=300, tokens_per_shard=3)
    index = folder / "index" / "part-00000.parquet"
    index.write_bytes((other / "index" / "part-00000.parquet").read_bytes())
    with pytest.raises(DataError, match="disagree"):
        TokenDocuments(folder)
