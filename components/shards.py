"""Sharded Parquet: how tables lie on disk between stages.

A table is a folder of `part-00000.parquet`, `part-00001.parquet`, ...: zstd, the same bytes for the
same rows. Shards hold a fixed number of rows, whatever wrote them, so neither the number of workers
nor the size of a batch shows in the result.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import DataError

ROWS_PER_GROUP = 1024
"""Small enough that a reader's memory stays flat with long documents."""


def shard_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


class ShardWriter:
    """Writes tables, one after the other, as shards of `rows_per_shard` rows.

    Leave the `with` block normally and a table without rows still gets one shard, so that its
    schema can be read.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_shard: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.num_rows = 0
        self._folder = folder
        self._schema = schema
        self._rows_per_shard = rows_per_shard
        self._file: pq.ParquetWriter | None = None
        self._index = self._rows_in_shard = self._pending_rows = 0
        self._pending: list[pa.Table] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._flush()
            if self._file is None and self._index == 0:
                self._file = self._open()
        if self._file is not None:
            self._file.close()

    def write(self, table: pa.Table) -> None:
        rest = table.cast(self._schema)
        while rest.num_rows:
            if self._file is None:
                self._file = self._open()
            take = min(
                rest.num_rows,
                self._rows_per_shard - self._rows_in_shard,
                ROWS_PER_GROUP - self._pending_rows,
            )
            self._pending.append(rest.slice(0, take))
            rest = rest.slice(take)
            self._pending_rows += take
            self._rows_in_shard += take
            self.num_rows += take
            if self._pending_rows == ROWS_PER_GROUP or self._rows_in_shard == self._rows_per_shard:
                self._flush()
            if self._rows_in_shard == self._rows_per_shard:
                self._file.close()
                self._file, self._rows_in_shard = None, 0
                self._index += 1

    def _flush(self) -> None:
        if self._pending_rows and self._file is not None:
            self._file.write_table(pa.concat_tables(self._pending), row_group_size=ROWS_PER_GROUP)
        self._pending, self._pending_rows = [], 0

    def _open(self) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            self._folder / shard_name(self._index),
            self._schema,
            compression="zstd",
            compression_level=3,
        )


def write_shards(
    folder: Path, tables: Iterable[pa.Table], schema: pa.Schema, rows_per_shard: int
) -> int:
    """Write `tables`, one after the other, with a ShardWriter; return the row count."""
    with ShardWriter(folder, schema, rows_per_shard) as writer:
        for table in tables:
            writer.write(table)
    return writer.num_rows


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a table, in order. Raises DataError if there is none."""
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise DataError(
            f"{folder}: no Parquet shard", "run the stage that writes it, or `dvc checkout`"
        )
    return paths


def read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One shard in memory. Raises DataError if it is missing, truncated or lacks a column."""
    try:
        return pq.read_table(path, columns=list(columns) if columns is not None else None)
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing", "run `dvc checkout`") from error
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise _unreadable(path, error) from error


def read_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole table in memory: for small ones."""
    return pa.concat_tables(read_shard(path, columns) for path in shard_paths(folder))


def iter_batches(
    folder: Path, columns: Sequence[str] | None = None, batch_rows: int = ROWS_PER_GROUP
) -> Iterator[pa.RecordBatch]:
    """The rows of a table in order, a batch at a time: memory does not grow with the table."""
    for path in shard_paths(folder):
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(
                    batch_rows, columns=list(columns) if columns is not None else None
                )
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(path, error) from error


class RowGroup(NamedTuple):
    """A piece of a table that one worker reads by itself."""

    path: Path
    position: int
    num_rows: int


def row_groups(folder: Path) -> list[RowGroup]:
    """The pieces of a table, in order, read from the shards' footers alone."""
    groups = []
    for path in shard_paths(folder):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(path, error) from error
        groups += [
            RowGroup(path, index, metadata.row_group(index).num_rows)
            for index in range(metadata.num_row_groups)
        ]
    return groups


def read_row_group(group: RowGroup, columns: Sequence[str] | None = None) -> pa.Table:
    """One piece in memory. Raises DataError if it is truncated or lacks a column."""
    try:
        with pq.ParquetFile(group.path) as file:
            return file.read_row_group(
                group.position, columns=list(columns) if columns is not None else None
            )
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise _unreadable(group.path, error) from error


def count_rows(folder: Path) -> int:
    """Rows of a table, read from the shards' footers alone."""
    total = 0
    for path in shard_paths(folder):
        try:
            total += pq.read_metadata(path).num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(path, error) from error
    return total


def _unreadable(path: Path, error: Exception) -> DataError:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(
        f"{path}: not a whole Parquet file ({first_line})",
        "restore it with `dvc checkout`, or run the stage that wrote it again",
    )
