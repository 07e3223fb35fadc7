import gzip
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest
import zstandard
from fastwarc.warc import WarcRecord, WarcRecordType

from components.ingest.warc import WarcPage, pages


def record(
    number: int, kind: str = "text/html; charset=utf-8", status: str = "200 OK", body: bytes = b""
) -> bytes:
    """A response as a crawler writes it, by the library's own writer."""
    page = f"<html><title>T{number}</title><body><p>Page {number}, größer</p></body></html>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n"
    written = WarcRecord()
    written.init_headers(record_type=WarcRecordType.response)
    written.headers["WARC-Target-URI"] = f"http://example.org/{number}"
    written.headers["Content-Type"] = "application/http; msgtype=response"
    written.set_bytes_content(head.encode() + (body or page.encode()))
    out = BytesIO()
    written.write(out)
    return out.getvalue()


def conversion(text: str, record_type: WarcRecordType = WarcRecordType.conversion) -> bytes:
    written = WarcRecord()
    written.init_headers(record_type=record_type)
    written.headers["WARC-Target-URI"] = "http://example.org/wet"
    written.set_bytes_content(text.encode())
    out = BytesIO()
    written.write(out)
    return out.getvalue()


def read(
    tmp_path: Path, content: bytes, name: str = "a.warc", skipped: Counter[str] | None = None
) -> list[WarcPage]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(pages(path, "resiliparse_all", Counter() if skipped is None else skipped))


def page(number: int) -> WarcPage:
    return WarcPage(f"http://example.org/{number}", f"T{number}", f"Page {number}, größer")


def test_html_responses_are_read_and_others_counted_by_reason(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    metadata = conversion("seen", WarcRecordType.metadata)
    content = metadata + record(1) + record(2, "image/png") + record(3, "Text/HTML; Charset=UTF-8")
    assert read(tmp_path, content, skipped=skipped) == [page(1), page(3)]
    assert skipped == {"not_html": 1, "warc_metadata": 1}


def test_error_pages_and_redirects_are_no_documents(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    statuses = ("404 Not Found", "206 Partial Content", "301 Moved Permanently", "503 Busy")
    content = b"".join(record(number, status=status) for number, status in enumerate(statuses))
    assert read(tmp_path, content, skipped=skipped) == [page(1)]
    assert skipped == {"http_status": 3}


def test_a_charset_that_nobody_knows_is_found_out_from_the_page(tmp_path: Path) -> None:
    content = record(1, "text/html; charset=utf8mb4-general") + record(2, "text/html; charset=hex")
    assert read(tmp_path, content) == [page(1), page(2)]


def test_a_page_says_its_encoding_where_the_server_does_not(tmp_path: Path) -> None:
    text = "Zażółć gęślą jaźń"
    body = f'<meta charset="iso-8859-2"><title>{text}</title><p>{text}</p>'.encode("iso-8859-2")
    (found,) = read(tmp_path, record(1, "text/html", body=body))
    assert (found.title, found.text) == (text, text)


def test_text_of_a_wet_file_is_taken_as_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, conversion(" Größe <b> \n")) == [
        WarcPage("http://example.org/wet", "", "Größe <b>")
    ]


def test_compression_by_record_is_undone(tmp_path: Path) -> None:
    packed = b"".join(gzip.compress(record(number)) for number in (1, 2))
    assert read(tmp_path, packed, "a.warc.gz") == [page(1), page(2)]
    packed = b"".join(zstandard.compress(record(number)) for number in (1, 2))
    assert read(tmp_path, packed, "a.warc.zst") == [page(1), page(2)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in_body.warc", (record(1) + record(2))[:-30]),
        ("in_header.warc", record(1) + record(2)[:40]),
        ("cut.warc.gz", gzip.compress(record(1)) + gzip.compress(record(2))[:-60]),
        ("cut.warc.zst", zstandard.compress(record(1)) + zstandard.compress(record(2))[:-20]),
        ("garbage.warc", b"no archive at all\n" * 20),
        ("empty.warc", b""),
        ("wrong_length.warc", record(1).replace(b"Content-Length: ", b"Content-Length: 9", 1)),
    ],
)
def test_an_archive_that_is_not_whole_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises((OSError, ValueError)):
        read(tmp_path, content, name)
