"""Pages of a WARC file (plain, gz, zst), and of a WET file, which holds text already."""

from collections import Counter
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


def pages(path: Path, extractor: str, skipped: Counter[str]) -> Iterator[WarcPage]:
    """The responses of status 2xx that are HTML and the conversions, which are text, in order.

    `skipped` counts the other records: `http_status`, `not_html`, or `warc_` and the record's type.
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
            reason = _why_no_page(record)
            if reason:
                skipped[reason] += 1
                continue
            html = _decoded(record.reader.read(), record.http_charset)
            yield WarcPage(url, html_title(html), html_to_text(html, extractor))
        else:
            skipped[f"warc_{record.record_type}"] += 1
    if number == 0:
        raise ValueError("no WARC record in it")


def _why_no_page(response: WarcRecord) -> str:
    """Why a response is no document, or nothing. Error pages and redirects are HTML as well."""
    headers = response.http_headers
    if headers is not None and not 200 <= (headers.status_code or 0) < 300:
        return "http_status"
    return "" if "html" in (response.http_content_type or "").lower() else "not_html"


def _decoded(raw: bytes, charset: str | None) -> str:
    """As the server says; if it says nothing that is known, as the page says; else by its bytes."""
    if charset:
        try:
            return bytes_to_str(raw, charset)
        except LookupError:  # servers make names up
            pass
    return bytes_to_str(raw, detect_encoding(raw, from_html_meta=True) or "utf-8")


def _require_whole(record: WarcRecord, number: int) -> None:
    """The iterator ends quietly in the middle of a record; the declared length tells."""
    declared = record.headers.get("Content-Length", "")
    record.freeze()
    if declared != str(record.content_length):
        raise ValueError(
            f"record {number} is cut short: {record.content_length} of {declared or '?'} bytes"
        )
