"""What one piece of work gave, as one file for another machine to read.

Arrow's IPC format alone, so reading a file runs no code of whoever wrote it. Each column is a stream
of its own, one behind the other, for a table's columns may be cut into chunks at different rows,
and where they are cut shows in the pages of a Parquet file: what is read is the table that was
written, to the last byte of what is made of it.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import pyarrow as pa

from components.contract import Json
from components.errors import DataError

HEAD = "head"
OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
"""Text shrinks to less than half at a rate that no shared volume reaches."""


@dataclass(frozen=True)
class Packed:
    """A result as what can be stored: tables, and what is small beside them."""

    tables: Sequence[pa.Table]
    figures: Json


def write_packed(path: Path, packed: Packed) -> None:
    """Make the file, whole or not at all. One that is there already stays: it holds the same."""
    head = {
        "figures": packed.figures,
        "tables": [(table.num_columns, table.num_rows) for table in packed.tables],
    }
    with whole_file(path, replace=False) as file:
        _write_stream(file, pa.table({HEAD: [json.dumps(head)]}))
        for table in packed.tables:
            for name in table.column_names:
                _write_stream(file, table.select([name]))


def read_packed(path: Path) -> Packed:
    """Raises DataError for a file that is not whole, as only a failing disk leaves one."""
    try:
        with pa.OSFile(str(path)) as file:
            head = json.loads(_read_stream(file).column(HEAD)[0].as_py())
            tables = [
                _read_columns(file, num_columns, num_rows)
                for num_columns, num_rows in head["tables"]
            ]
        return Packed(tables, head["figures"])
    except (OSError, pa.ArrowInvalid, ValueError, KeyError, TypeError, IndexError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: not a whole piece ({first})", "remove the file and run again"
        ) from error


@contextmanager
def whole_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """A file to write that gets its name when all of it is on the disk.

    With `replace` false one of that name that came up meanwhile stays: elsewhere somebody may be
    reading it, and some network file systems take a file that is replaced away from its readers.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace or not path.exists():
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that gets its name at the end; one that came up meanwhile stays."""
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    part.mkdir(parents=True)
    try:
        yield part
        try:
            part.rename(path)
        except OSError:  # no folder takes the place of one that holds something
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_stream(file: BinaryIO, table: pa.Table) -> None:
    with pa.ipc.new_stream(file, table.schema, options=OPTIONS) as stream:
        stream.write_table(table)


def _read_stream(file: pa.NativeFile) -> pa.Table:
    return pa.ipc.open_stream(file).read_all()


def _read_columns(file: pa.NativeFile, num_columns: int, num_rows: int) -> pa.Table:
    columns = [_read_stream(file) for _ in range(num_columns)]
    for column in columns:
        if column.num_rows != num_rows:
            raise ValueError(f"{column.num_rows} of {num_rows} rows")
    schema = pa.schema([column.schema.field(0) for column in columns])
    return pa.Table.from_arrays([column.column(0) for column in columns], schema=schema)
