"""A file's pages, whatever the format: HTML, Markdown, text, Mallard, JSONL, Parquet, WARC."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from components.contract import Json
from components.errors import DataError, UserError
from components.ingest import warc
from components.ingest.extract import (
    first_heading,
    html_title,
    html_to_text,
    mallard_to_text,
    markdown_to_text,
)
from components.ingest.params import SourceParams
from components.ingest.sources import SourceFile

FORMAT_OF_SUFFIX = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".page": "mallard",
    ".yml": "chatterbot",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
}
COMPRESSED = (".gz", ".zst")
ROWS_PER_BATCH = 256
HALF = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Page:
    """One document of a file, before anything is decided about it."""

    place: str
    """Where it lies: unique within the source and the same on every machine."""
    url: str
    title: str
    text: str


def format_of(source: SourceParams, name: str) -> str:
    """The format that the source names, or that the file's suffix says. UserError if neither does."""
    if source.format != "auto":
        return source.format
    path = PurePosixPath(name.partition("?")[0].lower())
    suffix = PurePosixPath(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    if suffix not in FORMAT_OF_SUFFIX:
        raise UserError(
            f"source {source.name}: {name}: unknown format {suffix or '(no suffix)'}",
            f"name the source's format; suffixes known: {' '.join(FORMAT_OF_SUFFIX)}",
        )
    return FORMAT_OF_SUFFIX[suffix]


def read_pages(
    source: SourceParams, file: SourceFile, extractor: str, skipped: Counter[str]
) -> Iterator[Page]:
    """The pages of a file, one at a time; what is passed over is counted in `skipped`, by reason.

    Raises DataError, naming source and file, if it is broken.
    """
    with told(source, file):
        match format_of(source, file.name):
            case "jsonl":
                yield from _rows_to_pages(_jsonl_rows(source, file), source, file)
            case "parquet":
                rows = _parquet_rows(source, file, skipped)
                yield from _rows_to_pages(rows, source, file)
            case "warc":
                for number, page in enumerate(warc.pages(file.path, extractor, skipped), 1):
                    place = f"{file.name}#{number}"
                    yield Page(place, page.url or place, page.title, page.text)
            case single:
                yield _single_page(single, file, extractor)


@contextmanager
def told(source: SourceParams, file: SourceFile) -> Iterator[None]:
    """What a broken file makes its reader raise, as one line that names source and file."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowInvalid, UnicodeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"source {source.name}: {file.name}: cannot be read to its end ({first_line})",
            "the file is broken, cut short, or of another format than its suffix says",
        ) from error


def open_bytes(path: Path) -> BufferedReader:
    """A file's content, decompressed by suffix; reading raises OSError if it is cut or corrupt."""
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    # To pyarrow zero bytes are an archive of nothing; they are a copy that was cut before it began.
    if compression and not path.stat().st_size:
        raise OSError(f"0 bytes, and {compression} of nothing has a header")
    return BufferedReader(pa.input_stream(str(path), compression=compression), 1 << 20)


def json_lines(source: SourceParams, file: SourceFile) -> Iterator[tuple[int, dict[str, Json]]]:
    """Line number (from 1) and object of each line that is not blank."""
    with open_bytes(file.path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if HALF.search(line):
                    row = _without_halves(row)
            except ValueError as error:
                raise bad_line(source, file, number, f"is not JSON ({error})") from error
            except RecursionError as error:
                raise bad_line(source, file, number, "is nested too deeply") from error
            if not isinstance(row, dict):
                raise bad_line(source, file, number, "is not a JSON object")
            yield number, row


def bad_line(source: SourceParams, file: SourceFile, number: int, what: str) -> DataError:
    """The error of one line or row."""
    return DataError(
        f"source {source.name}: {file.name}: line {number} {what}", "correct or remove the line"
    )


def _without_halves(row: Json) -> Json:
    """Halves of surrogate pairs, which JSON can spell and no file can hold, become U+FFFD."""
    spelt = json.dumps(row, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(spelt.decode("utf-16", "replace"))


def _single_page(form: str, file: SourceFile, extractor: str) -> Page:
    with open_bytes(file.path) as content:
        raw = content.read()
    marked_up = bytes_to_str(raw, detect_encoding(raw, from_html_meta=form == "html") or "utf-8")
    match form:
        case "html":
            title, text = html_title(marked_up), html_to_text(marked_up, extractor)
        case "mallard":
            title, text = html_title(marked_up), mallard_to_text(marked_up)
        case "markdown":
            title, text = first_heading(marked_up), markdown_to_text(marked_up)
        case _:
            title, text = "", marked_up.strip()
    return Page(file.name, file.name, title, text)


def _jsonl_rows(source: SourceParams, file: SourceFile) -> Iterator[tuple[int, dict[str, Json]]]:
    for number, row in json_lines(source, file):
        if not isinstance(row.get(source.text_column), str):
            has = ", ".join(row) or "nothing"
            raise bad_line(
                source, file, number, f"has no text in {source.text_column!r}; has {has}"
            )
        yield number, row


def _parquet_rows(
    source: SourceParams, file: SourceFile, skipped: Counter[str]
) -> Iterator[tuple[int, dict[str, Json]]]:
    with pq.ParquetFile(file.path) as parquet:
        has = parquet.schema_arrow.names
        if source.text_column not in has:
            raise DataError(
                f"source {source.name}: {file.name}: no column {source.text_column!r}; "
                f"has {', '.join(has)}",
                "set the source's text_column",
            )
        form = parquet.schema_arrow.field(source.text_column).type
        if not _is_text(form):
            raise DataError(
                f"source {source.name}: {file.name}: column {source.text_column!r} is {form}, no text",
                "set the source's text_column, or write the column as strings",
            )
        columns = [name for name in (source.text_column, "title", "url") if name in has]
        number = 0
        for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=columns):
            for row in batch.to_pylist():
                number += 1
                if row[source.text_column] is None:
                    skipped["null_text"] += 1
                else:
                    yield number, row


def _is_text(form: pa.DataType) -> bool:
    """Whether values of an Arrow type are str or None in Python."""
    if pa.types.is_dictionary(form):
        return _is_text(form.value_type)
    return form in (pa.string(), pa.large_string(), pa.string_view(), pa.null())


def _rows_to_pages(
    rows: Iterator[tuple[int, dict[str, Json]]], source: SourceParams, file: SourceFile
) -> Iterator[Page]:
    for number, row in rows:
        place = f"{file.name}#{number}"
        yield Page(
            place,
            str(row.get("url") or place),
            str(row.get("title") or ""),
            row[source.text_column].strip(),
        )
