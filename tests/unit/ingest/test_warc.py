import gzip
from io import BytesIO
from pathlib import Path

import pytest
import zstandard
from fastwarc.warc import WarcRecord, WarcRecordType

from components.ingest.warc import WarcPage, pages


def record(number: int, kind: str = "text/html; charset=utf-8") -> bytes:
    """A response as a crawler writes it, by the library's own writer."""
    body = f"<html><title>T{number}</title><body><p>Page {number}, größer</p></body></html>"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"
    written = WarcRecord()
    written.init_headers(record_type=WarcRecordType.response)
    written.headers["WARC-Target-URI"] = f"http://example.org/{number}"
    written.headers["Content-Type"] = "application/http; msgtype=response"
    written.set_bytes_content((head + body).encode())
    out = BytesIO()
    written.write(out)
    return out.getvalue()


def conversion(text: str) -> bytes:
    written = WarcRecord()
    written.init_headers(record_type=WarcRecordType.conversion)
    written.headers["WARC-Target-URI"] = "http://example.org/wet"
    written.set_bytes_content(text.encode())
    out = BytesIO()
    written.write(out)
    return out.getvalue()


def read(tmp_path: Path, content: bytes, name: str = "a.warc") -> list[WarcPage]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(pages(path, "resiliparse_all"))


def page(number: int) -> WarcPage:
    return WarcPage(f"http://example.org/{number}", f"T{number}", f"Page {number}, größer")


def test_html_responses_are_read_and_others_passed_over(tmp_path: Path) -> None:
    content = record(1) + record(2, "image/png") + record(3)
    assert read(tmp_path, content) == [page(1), page(3)]


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
