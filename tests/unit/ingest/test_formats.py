import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from components.errors import DataError, UserError
from components.ingest.formats import Page, format_of, read_pages
from components.ingest.params import SourceParams
from components.ingest.sources import SourceFile


def source(**changes: Any) -> SourceParams:
    return SourceParams.model_validate(
        {
            "name": "mine",
            "kind": "files",
            "location": "x",
            "content": "documents",
            "licence": "MIT",
        }
        | changes
    )


def pages_of(path: Path, skipped: Counter[str] | None = None, **changes: Any) -> list[Page]:
    file = SourceFile(path, path.name, path.stat().st_size)
    counts = Counter() if skipped is None else skipped
    return list(read_pages(source(**changes), file, "resiliparse_all", counts))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def fault_of(path: Path, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        pages_of(path, **changes)
    message = caught.value.message
    assert message.startswith(f"source mine: {path.name}: ")
    assert "\n" not in message
    assert caught.value.hint
    return message


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.html", "html"),
        ("a.HTM.gz", "html"),
        ("a.md", "markdown"),
        ("b/a.txt.zst", "text"),
        ("a.page", "mallard"),
        ("a.jsonl.zst", "jsonl"),
        ("a.parquet", "parquet"),
        ("crawl.warc.gz", "warc"),
        ("https://example.org/a.jsonl.gz?version=2", "jsonl"),
    ],
)
def test_a_suffix_says_the_format(name: str, wanted: str) -> None:
    assert format_of(source(), name) == wanted


def test_a_named_format_overrules_the_suffix() -> None:
    assert format_of(source(format="text"), "README") == "text"


@pytest.mark.parametrize("name", ["a.docx", "README", "a.gz"])
def test_an_unknown_format_is_the_users_to_name(name: str) -> None:
    with pytest.raises(UserError, match=f"source mine: {name}: unknown format") as caught:
        format_of(source(), name)
    assert ".html" in caught.value.hint


def gz(content: bytes) -> bytes:
    return gzip.compress(content)


def zst(content: bytes) -> bytes:
    return zstandard.compress(content)


LINES = b'{"text": " one ", "title": "T", "url": "http://u"}\n\n{"text": "two"}\n'


@pytest.mark.parametrize(
    ("suffix", "packed"), [("", bytes), (".gz", gz), (".zst", zst)], ids=["plain", "gz", "zst"]
)
def test_json_lines_are_read_however_packed(
    tmp_path: Path, suffix: str, packed: Callable[[bytes], bytes]
) -> None:
    path = written(tmp_path / f"a.jsonl{suffix}", packed(LINES))
    place = f"a.jsonl{suffix}#3"
    assert pages_of(path) == [
        Page(f"a.jsonl{suffix}#1", "http://u", "T", "one"),
        Page(place, place, "", "two"),
    ]


def test_an_archive_of_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl.gz", gz(LINES) + gz(LINES))
    assert [page.text for page in pages_of(path)] == ["one", "two", "one", "two"]


def test_another_column_may_hold_the_text(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"body": "one"}\n')
    assert [page.text for page in pages_of(path, text_column="body")] == ["one"]
    assert fault_of(path) == "source mine: a.jsonl: line 1 has no text in 'text'; has body"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{not json}", "line 2 is not JSON"),
        (b'["a list"]', "line 2 is not a JSON object"),
        (b'{"text": 5}', "line 2 has no text in 'text'"),
        (b'{"text": "\xff"}', "line 2 is not JSON"),
        (b"[" * 200_000, "line 2 is nested too deeply"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes, fault: str) -> None:
    assert fault in fault_of(written(tmp_path / "a.jsonl", b'{"text": "ok"}\n' + line + b"\n"))


@pytest.mark.parametrize("half", [b"", b'"\\ud83d"'], ids=["plain", "half a pair"])
def test_a_line_too_deep_is_refused_at_whatever_depth_that_is(tmp_path: Path, half: bytes) -> None:
    outcomes = set()
    for depth in range(800, 1000):
        line = b'{"text": "x", "more": ' + b"[" * depth + half + b"]" * depth + b"}\n"
        path = written(tmp_path / "a.jsonl", line)
        try:
            outcomes.add(pages_of(path)[0].text)
        except DataError as error:
            outcomes.add(error.message)
    assert outcomes == {"x", "source mine: a.jsonl: line 1 is nested too deeply"}


def test_half_a_surrogate_pair_becomes_a_sign_that_can_be_stored(tmp_path: Path) -> None:
    line = b'{"text": "a \\ud83d b \\ud83d\\ude00"}\n'
    (page,) = pages_of(written(tmp_path / "a.jsonl", line))
    assert page.text == "a � b \U0001f600"


NOISE = b"".join(json.dumps({"text": str(hash_) * 9}).encode() + b"\n" for hash_ in range(20_000))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jsonl.gz", gz(NOISE)[:-4000]),
        ("cut.jsonl.zst", zst(NOISE)[:-4000]),
        ("flipped.jsonl.gz", gz(NOISE)[:-6] + bytes(6)),
        ("other.jsonl.gz", b"plain text"),
        ("cut.html.gz", gz(NOISE)[:-4000]),
        ("begun.jsonl.gz", b""),
        ("begun.jsonl.zst", b""),
        ("begun.txt.gz", b""),
    ],
)
def test_a_broken_archive_is_never_taken_for_a_short_one(
    tmp_path: Path, name: str, content: bytes
) -> None:
    assert "cannot be read to its end" in fault_of(written(tmp_path / name, content))


def write_parquet(path: Path, num_rows: int) -> Path:
    texts = [f"row {index}" if index else None for index in range(num_rows)]
    pq.write_table(pa.table({"text": texts, "title": texts, "n": range(num_rows)}), path)
    return path


def test_an_archive_of_nothing_is_no_truncated_one(tmp_path: Path) -> None:
    assert pages_of(written(tmp_path / "a.jsonl.gz", gz(b""))) == []
    assert pages_of(written(tmp_path / "a.jsonl.zst", zst(b""))) == []


def test_parquet_rows_become_pages_and_rows_without_text_are_counted(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    pages = pages_of(write_parquet(tmp_path / "a.parquet", 600), skipped)
    assert len(pages) == 599
    assert skipped == {"null_text": 1}
    assert pages[0] == Page("a.parquet#2", "a.parquet#2", "row 1", "row 1")
    assert len({page.place for page in pages}) == 599


def test_a_missing_column_is_named_beside_those_there(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", 3)
    fault = fault_of(path, text_column="body")
    assert fault == "source mine: a.parquet: no column 'body'; has text, title, n"


@pytest.mark.parametrize(
    "form",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    ids=str,
)
def test_every_kind_of_string_column_is_text(tmp_path: Path, form: pa.DataType) -> None:
    texts = pa.array(["one", None, "two"]).cast(form)
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert [page.text for page in pages_of(tmp_path / "a.parquet")] == ["one", "two"]


@pytest.mark.parametrize("values", [[1, 2], [b"a", b"b"], [["a"], ["b"]], [{"a": "b"}]], ids=str)
def test_a_column_that_is_no_text_is_refused_with_its_type(
    tmp_path: Path, values: list[Any]
) -> None:
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    form = pa.array(values).type
    found = fault_of(tmp_path / "a.parquet")
    assert found.startswith("source mine: a.parquet: column 'text' is ")
    assert found.endswith(", no text")
    assert str(form).split("<")[0] in found


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", 600)
    path.write_bytes(path.read_bytes()[:-50])
    assert "cannot be read to its end" in fault_of(path)


def test_single_pages_are_read_by_their_format(tmp_path: Path) -> None:
    html = written(tmp_path / "a.html", b"<title>T</title><p>one &amp; two</p>")
    assert pages_of(html) == [Page("a.html", "a.html", "T", "one & two")]
    markdown = written(tmp_path / "a.md", b"# Head\n\n*body*\n")
    assert pages_of(markdown) == [Page("a.md", "a.md", "Head", "Head\n\nbody")]
    text = written(tmp_path / "a.txt.gz", gz(b" plain *text* \n"))
    assert pages_of(text) == [Page("a.txt.gz", "a.txt.gz", "", "plain *text*")]


def test_a_page_says_its_own_encoding(tmp_path: Path) -> None:
    html = '<meta charset="iso-8859-1"><title>Ö</title><p>Größe, Café</p>'
    (page,) = pages_of(written(tmp_path / "a.html", html.encode("latin-1")))
    assert (page.title, page.text) == ("Ö", "Größe, Café")
