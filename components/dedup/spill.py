"""Columns of 64-bit numbers that grow on disk, so that memory stays flat as the corpus grows."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]


class SpilledColumn:
    """Appended to while a pass runs, then mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")

    def append(self, values: U64) -> None:
        self._file.write(np.ascontiguousarray(values, np.uint64).data)

    def mapped(self) -> U64:
        """All values, in the order of their appending; only once nothing more is appended."""
        self._file.close()
        if not self._path.stat().st_size:  # an empty file cannot be mapped
            return np.zeros(0, np.uint64)
        return np.memmap(self._path, np.uint64, "r")


class SpilledSets:
    """A set of numbers for each document; in memory are only their sizes."""

    def __init__(self, path: Path) -> None:
        self._column = SpilledColumn(path)
        self._sizes: list[Ints] = []

    def append(self, values: U64, sizes: Ints) -> None:
        """The sets of some more documents, one after the other."""
        self._column.append(values)
        self._sizes.append(sizes)

    def mapped(self) -> tuple[U64, Ints]:
        """values [S] and first [D + 1]: document d has values[first[d]:first[d + 1]]."""
        first = np.cumsum(np.concatenate([np.zeros(1, np.int64), *self._sizes]))
        return self._column.mapped(), first
