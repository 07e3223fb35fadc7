"""Rows on their way to the published tables: Arrow files, one for each table and split of a unit."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from components.schemas import CONVERSATIONS, DOCUMENTS, RATED_RESPONSES, SPLITS

Row = dict[str, object]

EXCHANGES = CONVERSATIONS.append(pa.field("other_answer", pa.string()))
"""`other_answer`: to the same rule, from another training document of the group; empty if none."""

SCHEMAS = {
    "documents": DOCUMENTS,
    "conversations": EXCHANGES,
    "rated_responses": RATED_RESPONSES,
}


@contextmanager
def spill(folder: Path) -> Iterator[Callable[[str, str, list[Row]], None]]:
    """Writes rows to `<table>-<split>.arrow`, one record batch a call; every file exists at the end."""
    with ExitStack() as stack:
        writers = {
            (table, split): stack.enter_context(
                pa.ipc.new_file(str(folder / f"{table}-{split}.arrow"), schema)
            )
            for table, schema in SCHEMAS.items()
            for split in SPLITS
        }

        def write(table: str, split: str, rows: list[Row]) -> None:
            if rows:
                batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMAS[table])
                writers[table, split].write_batch(batch)

        yield write


def spilled(folders: Iterable[Path], table: str, split: str) -> Iterator[pa.Table]:
    """The rows that the units left, in the units' order, a batch at a time."""
    for folder in folders:
        with pa.memory_map(str(folder / f"{table}-{split}.arrow")) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(index)])
