"""What is read is the table that was written."""

import os
from pathlib import Path

import pyarrow as pa

from components.errors import DataError
from components.piece_files import Packed, read_packed, write_packed


def test_a_table_keeps_its_values_and_where_each_column_is_cut(tmp_path: Path) -> None:
    texts = pa.chunked_array([["a", None], ["b" * 5000]])
    votes = pa.chunked_array([pa.array([[1], [], [2, 3]], pa.list_(pa.int8()))])
    table = pa.table({"text": texts, "votes": votes})
    path = tmp_path / "piece"
    write_packed(path, Packed([table, table.slice(0, 0)], {"n": 1, "é": [0.1]}))
    found = read_packed(path)
    assert found.figures == {"n": 1, "é": [0.1]}
    assert found.tables[0].equals(table)
    assert found.tables[0].schema == table.schema
    assert [column.num_chunks for column in found.tables[0].columns] == [2, 1]
    assert (found.tables[1].schema, found.tables[1].num_rows) == (table.schema, 0)
    assert os.listdir(tmp_path) == ["piece"]


def test_a_file_that_is_cut_off_anywhere_is_named_or_read_whole(tmp_path: Path) -> None:
    table = pa.table({"text": ["one", "two"], "number": [1, 2]})
    whole = tmp_path / "whole"
    write_packed(whole, Packed([table], None))
    content = whole.read_bytes()
    cut = tmp_path / "cut"
    named = []
    for length in range(0, len(content), 7):
        cut.write_bytes(content[:length])
        try:
            found = read_packed(cut)
        except DataError as error:
            named.append(error.message.startswith(f"{cut}: not a whole piece"))
        else:
            assert found.tables[0].equals(table)
    assert all(named)
    assert len(named) > len(content) / 7 - 3  # but for a missing end of the last stream


def test_of_two_that_write_the_same_piece_the_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "piece"
    write_packed(path, Packed([], 1))
    inode = path.stat().st_ino
    write_packed(path, Packed([], 1))
    assert path.stat().st_ino == inode
    assert os.listdir(tmp_path) == ["piece"]
