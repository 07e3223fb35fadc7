"""Sharded Parquet: how tables lie on disk between stages.

A table is a folder of `part-00000.parquet`, `part-00001.parquet`, ...: zstd, the same bytes for the
same rows. Shards hold a fixed number of rows, whatever wrote them, so neither the number of workers
nor the size of a batch shows in the result.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import DataError

ROWS_PER_GROUP = 1024
"""Small enough that a reader's memory stays flat with long documents."""


def shard_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def write_shards(
    folder: Path, tables: Iterable[pa.Table], schema: pa.Schema, rows_per_shard: int
) -> int:
    """Write `tables`, one after the other, as shards of `rows_per_shard` rows; return the row count.

    An empty table is one shard without rows, so that its schema can still be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer: pq.ParquetWriter | None = None
    index = rows_in_shard = num_rows = 0
    pending: list[pa.Table] = []
    pending_rows = 0

    def flush() -> None:
        nonlocal pending, pending_rows
        if pending_rows and writer is not None:
            writer.write_table(pa.concat_tables(pending), row_group_size=ROWS_PER_GROUP)
        pending, pending_rows = [], 0

    for table in tables:
        rest = table.cast(schema)
        while rest.num_rows:
            if writer is None:
                writer = _writer(folder / shard_name(index), schema)
            take = min(rest.num_rows, rows_per_shard - rows_in_shard, ROWS_PER_GROUP - pending_rows)
            pending.append(rest.slice(0, take))
            pending_rows += take
            rest = rest.slice(take)
            rows_in_shard += take
            num_rows += take
            if pending_rows == ROWS_PER_GROUP or rows_in_shard == rows_per_shard:
                flush()
            if rows_in_shard == rows_per_shard:
                writer.close()
                writer, rows_in_shard, index = None, 0, index + 1
    flush()
    if writer is not None:
        writer.close()
    elif index == 0:
        _writer(folder / shard_name(0), schema).close()
    return num_rows


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=3)


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
