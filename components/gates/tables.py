"""What a contract is checked on: data frames of the projected columns, of bounded size.

Up to MAX_ROWS rows a table is read whole. Above, every k-th row is (k = ceil(rows / MAX_ROWS)), and
what only all rows can tell, their number and their uniqueness, is checked on a second frame that
holds a 64-bit hash for each value: 8 bytes a row, whatever the text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.contract import Report
from components.errors import DataError
from components.shards import count_rows, iter_batches, shard_paths

MAX_ROWS = 100_000
FOLDER = "folder"
ALL_ROWS_TYPES = frozenset(
    {
        "expect_column_values_to_be_unique",
        "expect_compound_columns_to_be_unique",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_unique_value_count_to_be_between",
        "expect_table_row_count_to_be_between",
        "expect_table_row_count_to_equal",
    }
)


@dataclass(frozen=True)
class Frames:
    """One table, ready to be checked."""

    name: str
    sample: pd.DataFrame
    all_rows: pd.DataFrame
    """Hashes of the columns that must be unique; the sample itself if that is the whole table."""
    num_rows: int
    every: int
    """1: every row is in the sample."""

    @property
    def rule(self) -> str:
        """How many rows were looked at, in words."""
        if self.every == 1:
            return f"all {self.num_rows:,} rows" if self.num_rows != 1 else "the one row"
        return (
            f"{len(self.sample):,} of {self.num_rows:,} rows (every {self.every}th; "
            "row count and, by 64-bit hash, uniqueness on all rows)"
        )


def table_folders(out: Path, pattern: str) -> list[Path]:
    """The Parquet folders under `out` that `pattern` names, in order. DataError if none."""
    folders = sorted(path for path in out.glob(pattern) if any(path.glob("part-*.parquet")))
    if not folders:
        raise DataError(f"{out}: no Parquet folder matches {pattern!r}", "the stage wrote no table")
    return folders


def read_frames(
    name: str,
    folders: Sequence[Path],
    *,
    columns: Sequence[str],
    lengths: Sequence[str],
    unique: Sequence[str],
    digests: Sequence[str] = (),
    max_rows: int = MAX_ROWS,
) -> Frames:
    """The rows of `folders`, one after the other, as the module's docstring says.

    `unique` names those of `columns` and of the digests whose values the second frame holds as
    hashes. Raises DataError if a column is missing.
    """
    num_rows = sum(count_rows(folder) for folder in folders)
    every = max(1, math.ceil(num_rows / max_rows))
    stored = [
        column for column in dict.fromkeys([*columns, *lengths, *digests]) if column != FOLDER
    ]
    stored_of = {f"{column}_digest": column for column in digests}
    pieces: list[pa.Table] = []
    hashes: dict[str, list[pd.Series]] = {column: [] for column in unique}
    position = 0
    for folder in folders:
        schema = _schema_of(name, folder, stored)
        for batch in chain(
            [pa.RecordBatch.from_pylist([], schema=schema)], iter_batches(folder, stored)
        ):
            first = -position % every
            taken = batch.take(pa.array(range(first, batch.num_rows, every), pa.int64()))
            pieces.append(_projected(taken, folder.name, columns, lengths, digests))
            if every > 1:
                for column in unique:
                    hashes[column].append(_hashes(batch.column(stored_of.get(column, column))))
            position += batch.num_rows
    table = pa.concat_tables(pieces)
    sample = table.to_pandas() if table.column_names else pd.DataFrame(index=range(num_rows))
    if every == 1:
        return Frames(name, sample, sample, num_rows, every)
    all_rows = pd.DataFrame(
        {column: pd.concat(parts, ignore_index=True) for column, parts in hashes.items()},
        index=pd.RangeIndex(num_rows),
    )
    return Frames(name, sample, all_rows, num_rows, every)


def file_frames(out: Path) -> Frames:
    """One row for each file under `out`: its path there and its size."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    rows = [(path.relative_to(out).as_posix(), path.stat().st_size) for path in files]
    frame = pd.DataFrame(rows, columns=["path", "num_bytes"])
    return Frames("files", frame, frame, len(rows), 1)


def report_frames(report: Report) -> Frames:
    """One row: the report's numbers and strings by their joined names.

    A number that is not finite becomes null, so that no comparison passes it unseen.
    """
    flat = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in flatten(report).items()
    }
    frame = pd.DataFrame([flat])
    return Frames("report", frame, frame, 1, 1)


def flatten(report: Report, prefix: str = "") -> dict[str, object]:
    """`{"removed": {"short": 3}}` -> `{"removed.short": 3}`; lists are left out."""
    flat: dict[str, object] = {}
    for key, value in report.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = value
    return flat


def _schema_of(name: str, folder: Path, columns: Sequence[str]) -> pa.Schema:
    schema = pq.read_schema(shard_paths(folder)[0])
    missing = [column for column in columns if column not in schema.names]
    if missing:
        raise DataError(
            f"{folder}: table {name!r} has no column {missing[0]!r}; has {', '.join(schema.names)}",
            "mend the contract, or the stage that writes the table",
        )
    return pa.schema([schema.field(column) for column in columns])


def _projected(
    batch: pa.RecordBatch,
    folder: str,
    columns: Sequence[str],
    lengths: Sequence[str],
    digests: Sequence[str],
) -> pa.Table:
    arrays: dict[str, pa.Array] = {
        column: pa.repeat(folder, batch.num_rows) if column == FOLDER else batch.column(column)
        for column in columns
    }
    arrays |= dict(_length(column, batch.column(column)) for column in lengths)
    arrays |= {
        f"{column}_digest": pa.array(_hashes(batch.column(column)), pa.uint64())
        for column in digests
    }
    return pa.table(arrays)


def _length(column: str, values: pa.Array) -> tuple[str, pa.Array]:
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return f"{column}_num_chars", pc.utf8_length(values)
    return f"{column}_num_items", pc.list_value_length(values)


def _hashes(values: pa.Array) -> pd.Series:
    """A 64-bit hash of each value; null stays null, since null is never a duplicate."""
    series = values.to_pandas()
    hashed = pd.util.hash_array(np.asarray(series))
    return pd.Series(hashed, dtype="UInt64").mask(series.isna().to_numpy())
