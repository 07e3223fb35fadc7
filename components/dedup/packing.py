"""Fingerprints and inspections on their way between machines: tables with a row for each document."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.dedup.fingerprints import HEX_NAME, Fingerprints, Names
from components.dedup.inspection import Inspection
from components.dedup.shingles import Shingles
from components.dedup.spill import U64
from components.piece_files import Packed
from components.sharing import Form

NAME = pa.binary(np.dtype(HEX_NAME).itemsize)


def pack_fingerprints(found: Fingerprints) -> Packed:
    columns = {"id": _name_column(found.ids), "content": _name_column(found.contents)}
    if found.shingles is not None:
        columns["shingles"] = _set_column(found.shingles)
    if found.keys is not None:
        num_bands = found.keys.shape[1]
        columns["keys"] = pa.FixedSizeListArray.from_arrays(pa.array(found.keys.ravel()), num_bands)
    if found.held_out is not None:
        columns["held_out"] = _set_column(found.held_out)
    return Packed([pa.table(columns)], {"num_bytes": found.num_bytes})


def unpack_fingerprints(packed: Packed) -> Fingerprints:
    columns = _columns(packed)
    return Fingerprints(
        ids=_names(columns["id"]),
        contents=_names(columns["content"]),
        num_bytes=packed.figures["num_bytes"],
        shingles=_sets(columns.get("shingles")),
        keys=_keys(columns["keys"]) if "keys" in columns else None,
        held_out=_sets(columns.get("held_out")),
    )


FINGERPRINTS = Form("fingerprints", pack_fingerprints, unpack_fingerprints)


def pack_inspection(found: Inspection) -> Packed:
    first = np.concatenate(([0], np.cumsum(found.num_lines)))
    columns = {
        "overlap": pa.array(found.overlap),
        "held_out": pa.array(found.held_out),
        "lines": pa.LargeListArray.from_arrays(pa.array(first), pa.array(found.lines)),
    }
    return Packed([pa.table(columns)], None)


def unpack_inspection(packed: Packed) -> Inspection:
    columns = _columns(packed)
    return Inspection(
        overlap=columns["overlap"].to_numpy(),
        held_out=columns["held_out"].to_numpy(),
        lines=columns["lines"].flatten().to_numpy(),
        num_lines=columns["lines"].value_lengths().to_numpy(),
    )


INSPECTIONS = Form("inspections", pack_inspection, unpack_inspection)


def _columns(packed: Packed) -> dict[str, pa.Array]:
    (table,) = packed.tables
    return {name: table[name].combine_chunks() for name in table.column_names}


def _name_column(names: Names) -> pa.Array:
    buffers = [None, pa.py_buffer(names.tobytes())]
    return pa.FixedSizeBinaryArray.from_buffers(NAME, len(names), buffers)


def _names(column: pa.Array) -> Names:
    flat = np.frombuffer(column.buffers()[1] or b"", HEX_NAME)
    return flat[column.offset : column.offset + len(column)]


def _set_column(sets: Shingles) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(sets.first), pa.array(sets.values))


def _sets(column: pa.Array | None) -> Shingles | None:
    if column is None:
        return None
    first: NDArray[np.int64] = column.offsets.to_numpy()
    return Shingles(column.flatten().to_numpy(), first - first[0])


def _keys(column: pa.Array) -> U64:
    keys: U64 = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    return keys
