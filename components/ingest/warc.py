"""Pages of a WARC file (plain, gz, zst), and of a WET file, which holds text already."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from components.ingest.extract import html_title, html_to_text


class WarcPage(NamedTuple):
    """A record's page; its URL is the one it was crawled from."""

    url: str
    title: str
    text: str


def pages(path: Path, extractor: str) -> Iterator[WarcPage]:
    """The responses that are HTML and the conversions that are text, in order.

    Raises OSError or ValueError if the file holds no record, or one that is broken or cut short.
    """
    number = 0
    records = ArchiveIterator(
        str(path), record_types=WarcRecordType.any_type, parse_http=False, fsspec_args=False
    )
    for number, record in enumerate(records, 1):
        _require_whole(record, number)
        url = record.headers.get("WARC-Target-URI") or ""
        if record.record_type == WarcRecordType.conversion:
            yield WarcPage(url, "", bytes_to_str(record.reader.read(), "utf-8").strip())
        elif record.record_type == WarcRecordType.response:
            record.parse_http(auto_decode="all")
            if "html" in (record.http_content_type or ""):
                raw = record.reader.read()
                html = bytes_to_str(raw, record.http_charset or detect_encoding(raw) or "utf-8")
                yield WarcPage(url, html_title(html), html_to_text(html, extractor))
    if number == 0:
        raise ValueError("no WARC record in it")


def _require_whole(record: WarcRecord, number: int) -> None:
    """The iterator ends quietly in the middle of a record; the declared length tells."""
    declared = record.headers.get("Content-Length", "")
    record.freeze()
    if declared != str(record.content_length):
        raise ValueError(
            f"record {number} is cut short: {record.content_length} of {declared or '?'} bytes"
        )
