"""ingest as a whole, on small inputs of every kind."""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contract import StageIO
from components.errors import DataError, UserError
from components.ingest.params import IngestParams
from components.ingest.stage import run
from components.metrics import QuietSink
from components.schemas import CONVERSATIONS, DOCUMENTS, RATED_RESPONSES, SPLITS
from components.shards import read_table

SENTENCE = "Part {n} of the manual tells how to mend the pump when valve {n} leaks. It is easy."


def source(name: str, location: Path | str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "files",
        "location": str(location),
        "content": "documents",
        "licence": "MIT",
    } | changes


def params(*sources: dict[str, Any]) -> IngestParams:
    return IngestParams.model_validate(
        {
            "sources": list(sources),
            "extractor": "resiliparse_all",
            "split": {"train": 0.8, "valid": 0.1, "test": 0.1},
            "conversations": {
                "parameters_per_operation": 2,
                "min_answer_chars": 20,
                "max_answer_chars": 300,
            },
            "ratings": {
                "num_prompts": {"train": 20, "valid": 5, "test": 5},
                "prior_softening": 0.2,
                "endpoint_model": "judge",
            },
            "rows_per_shard": 50,
        }
    )


def stage_io(root: Path, num_workers: int = 1) -> StageIO:
    folders = [root / name for name in ("out", "work", "reports", "cache")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return StageIO({}, *folders, seed=1, num_workers=num_workers)


def pages(folder: Path, num: int = 200) -> Path:
    """HTML pages, each with a title and a text of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        text = SENTENCE.format(n=number)
        (folder / f"{number:04d}.html").write_text(
            f"<title>Valve {number}</title><h1>Valve {number}</h1><p>{text}</p>"
        )
    return folder / "*.html"


def all_rows(out: Path, table: str) -> dict[str, list[dict[str, Any]]]:
    return {split: read_table(out / table / split).to_pylist() for split in SPLITS}


def files_under(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_many_formats_become_one_set_of_tables(tmp_path: Path) -> None:
    data = tmp_path / "data"
    glob = pages(data)
    (data / "a.md").write_text("# Title\n\nSome *marked up* text that is long enough to keep.\n")
    lines = b"".join(b'{"text": "line number %d"}\n' % number for number in range(40))
    (data / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    pq.write_table(pa.table({"body": [f"row {n}" for n in range(30)]}), data / "a.parquet")
    dialogue = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    (data / "chat.jsonl").write_text((json.dumps({"messages": dialogue}) + "\n") * 30)
    responses = [{"response": "Yes.", "votes": [0, 1]}, {"response": "No.", "votes": [2, 5]}]
    own = {"prompt": "Is it so?", "responses": responses}
    (data / "rated.jsonl").write_text(json.dumps(own) + "\n")
    report = run(
        params(
            source("web", glob),
            source("notes", data / "a.md", licence="CC0-1.0"),
            source("lines", data / "a.jsonl.gz"),
            source("table", data / "a.parquet", text_column="body"),
            source("chat", data / "chat.jsonl", content="conversations"),
            source("rated", data / "rated.jsonl", content="ratings"),
        ),
        io := stage_io(tmp_path),
        QuietSink(),
    )
    documents = all_rows(io.out, "documents")
    everything = [row for rows in documents.values() for row in rows]
    assert len(everything) == 200 + 1 + 40 + 30
    assert len({row["id"] for row in everything}) == len(everything)
    assert {row["source"] for row in everything} == {"web", "notes", "lines", "table"}
    assert report["num_documents"] == {split: len(rows) for split, rows in documents.items()}
    assert all(report["num_documents"][split] > 5 for split in SPLITS)
    assert [row["licence"] for row in everything if row["source"] == "notes"] == ["CC0-1.0"]

    conversations = all_rows(io.out, "conversations")
    for split in SPLITS:
        ids = {row["id"] for row in documents[split]}
        made = [row for row in conversations[split] if row["rule"] != "own"]
        assert {row["document_id"] for row in made} <= ids
    own_ones = [row for rows in conversations.values() for row in rows if row["source"] == "chat"]
    assert len(own_ones) == 30
    assert own_ones[0]["messages"] == dialogue

    rated = [row for rows in all_rows(io.out, "rated_responses").values() for row in rows]
    assert len(rated) == 30 * 5 + 2
    assert [row["votes"] for row in rated if not row["synthetic"]] == [[0, 1], [2, 5]]
    for table, schema in (
        ("documents", DOCUMENTS),
        ("conversations", CONVERSATIONS),
        ("rated_responses", RATED_RESPONSES),
    ):
        assert all(read_table(io.out / table / split).schema == schema for split in SPLITS)

    manifest = json.loads((io.out / "manifest.json").read_text())
    assert manifest["rater_of_made_prompts"] == "simulated crowd (synthetic)"
    web, notes = manifest["sources"][:2]
    assert (web["num_files"], web["num_documents"], web["licence"]) == (200, 200, "MIT")
    assert notes["sha256"] == hashlib.sha256((data / "a.md").read_bytes()).hexdigest()
    assert {path.name for path in io.reports.iterdir()} == {"document_lengths.png", "votes.png"}


def test_what_is_passed_over_is_counted_by_reason(tmp_path: Path) -> None:
    record = "WARC/1.0\r\nWARC-Type: {0}\r\nContent-Length: {1}\r\n\r\n{2}\r\n\r\n"
    page = SENTENCE.format(n=1)
    archive = tmp_path / "a.warc"
    archive.write_bytes(
        (
            record.format("warcinfo", 4, "seen")
            + record.format("conversion", len(page), page)
            + record.format("request", 4, "GET ")
            + record.format("warcinfo", 4, "seen")
        ).encode()
    )
    io = stage_io(tmp_path)
    web = source("web", pages(tmp_path / "data"))
    report = run(params(web, source("crawl", archive)), io, QuietSink())
    assert report["num_skipped"] == {"warc_request": 1, "warc_warcinfo": 2}
    entries = json.loads((io.out / "manifest.json").read_text())["sources"]
    assert "skipped" not in entries[0]
    assert entries[1]["skipped"] == {"warc_request": 1, "warc_warcinfo": 2}
    assert entries[1]["num_documents"] == 1


def test_a_key_in_an_address_is_neither_published_nor_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"".join(json.dumps({"text": SENTENCE.format(n=n)}).encode() + b"\n" for n in range(60))
    location = "memory://published/a.jsonl?token=s3cret"
    fsspec.filesystem("memory").pipe_file("/published/a.jsonl?token=s3cret", lines)
    told: list[str] = []
    monkeypatch.setattr(QuietSink, "info", lambda self, message: told.append(message))
    io = stage_io(tmp_path)
    run(params(source("remote", location)), io, QuietSink())
    assert told[0] == "fetching remote from memory://published/a.jsonl?token=***"
    manifest = json.loads((io.out / "manifest.json").read_text())
    assert manifest["sources"][0]["location"] == "memory://published/a.jsonl?token=***"
    row = all_rows(io.out, "documents")["train"][0]
    assert row["url"].startswith("memory:///published/a.jsonl?token=***#")
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"s3cret" in path.read_bytes() for path in kept)


def test_the_wrong_answers_never_come_from_held_out_text(tmp_path: Path) -> None:
    io = stage_io(tmp_path)
    run(params(source("web", pages(tmp_path / "data"))), io, QuietSink())
    train_text = {row["text"] for row in all_rows(io.out, "documents")["train"]}
    for rows in all_rows(io.out, "rated_responses").values():
        wrong = [row["response"] for row in rows if row["candidate"] == "other_operation"]
        assert wrong
        assert all(any(response in text for text in train_text) for response in wrong)


def test_equal_texts_share_their_split_and_keep_ids_of_their_own(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("one", "two"):
        pages(data / name, 60)
    io = stage_io(tmp_path)
    run(params(source("web", data / "*" / "*.html")), io, QuietSink())
    documents = all_rows(io.out, "documents")
    ids = [row["id"] for rows in documents.values() for row in rows]
    assert len(set(ids)) == len(ids) == 120
    texts = [{row["text"] for row in rows} for rows in documents.values()]
    assert sum(len(found) for found in texts) == 60


def test_the_result_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    wanted = params(source("web", pages(tmp_path / "data", 700)))
    results = []
    for num_workers in (1, 2, 3):
        io = stage_io(tmp_path / str(num_workers), num_workers)
        run(wanted, io, QuietSink())
        results.append(files_under(io.out) | files_under(io.reports))
    assert results[0] == results[1] == results[2]
    assert len(results[0]) > 10


def test_a_second_attempt_reads_on_where_the_first_one_stopped(tmp_path: Path) -> None:
    good = source("web", pages(tmp_path / "data", 300))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": \n')
    both = params(good, source("lines", broken))
    io = stage_io(tmp_path)
    with pytest.raises(DataError, match="line 2"):
        run(both, io, QuietSink())
    assert not (io.out / "manifest.json").exists()
    units = {path: path.stat().st_mtime_ns for path in (io.work / "units").rglob("counts.json")}
    assert len(units) == 3
    broken.write_text('{"text": "fine"}\n{"text": "mended"}\n')
    report = run(both, io, QuietSink())
    assert report["num_documents_of_source"] == {"web": 300, "lines": 2}
    assert all(path.stat().st_mtime_ns == at for path, at in units.items())

    fresh = stage_io(tmp_path / "fresh")
    run(both, fresh, QuietSink())
    assert files_under(fresh.out) == files_under(io.out)


def write(path: Path, content: bytes) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return source("mine", path)


PACKED = gzip.compress(b"".join(b'{"text": "%d"}\n' % (n * n) for n in range(9_000)))
BROKEN: dict[str, tuple[Callable[[Path], dict[str, Any]], type[Exception], str]] = {
    "missing file": (lambda at: source("mine", at / "no.txt"), DataError, r"no\.txt: no such file"),
    "empty glob": (lambda at: source("mine", at / "*.txt"), DataError, "matches no file"),
    "empty corpus": (
        lambda at: write(at / "a.html", b"<p> </p>"),
        DataError,
        "no documents in the 1 files of",
    ),
    "wrong sha256": (
        lambda at: write(at / "a.txt", b"text") | {"sha256": "1" * 64},
        DataError,
        f"not {'1' * 64}",
    ),
    "corrupt gz": (
        lambda at: write(at / "a.jsonl.gz", PACKED[:-999]),
        DataError,
        "cannot be read to its end",
    ),
    "truncated Parquet": (
        lambda at: write(at / "a.parquet", b"PAR1 and no more"),
        DataError,
        "cannot be read to its end",
    ),
    "bad JSON line": (
        lambda at: write(at / "a.jsonl", b'{"text": "x"}\nnot json\n'),
        DataError,
        "line 2 is not JSON",
    ),
    "unreadable WARC": (
        lambda at: write(at / "a.warc", b"WARC/1.0\r\nWARC-Type: resp"),
        DataError,
        "cannot be read to its end",
    ),
    "nothing but requests": (
        lambda at: write(
            at / "a.warc", b"WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 1\r\n\r\nG\r\n\r\n"
        ),
        DataError,
        r"no documents in the 1 files of .*/a\.warc \(passed over: 1 warc_request\)",
    ),
    "unknown format": (lambda at: write(at / "a.doc", b"x"), UserError, r"unknown format \.doc"),
    "another botocore": (
        lambda at: source("mine", "botocore==0.1 */*", kind="botocore"),
        UserError,
        "but .* is installed",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_fault_is_one_line_and_nothing_counts_as_published(
    tmp_path: Path, fault: str, num_workers: int
) -> None:
    make, error, message = BROKEN[fault]
    io = stage_io(tmp_path, num_workers)
    with pytest.raises(error, match=message) as caught:
        run(params(make(tmp_path / "data")), io, QuietSink())
    text = str(caught.value)
    assert text.startswith("source mine: ")
    assert "\n" not in text
    assert caught.value.hint  # type: ignore[attr-defined]
    assert not (io.out / "manifest.json").exists()


def test_a_corpus_of_conversations_alone_is_no_corpus(tmp_path: Path) -> None:
    dialogue = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": dialogue}) + "\n")
    chat = source("chat", tmp_path / "chat.jsonl", content="conversations")
    with pytest.raises(DataError, match="the corpus is empty: no source has documents"):
        run(params(chat), stage_io(tmp_path), QuietSink())


def test_the_endpoint_rates_if_its_address_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            annotator = "annotator" in request["messages"][0]["content"]
            text = "[60, 20, 20, 0, 0, 0]" if annotator else "2"
            content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HEADRACE_RATER_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("HEADRACE_RATER_KEY", "the-key-of-this-test")
        io = stage_io(tmp_path)
        report = run(params(source("web", pages(tmp_path / "data"))), io, QuietSink())
        server.shutdown()
    rated = all_rows(io.out, "rated_responses")["train"]
    assert len(rated) == 100
    assert {row["rater"] for row in rated} == {"judge (synthetic)"}
    assert all(row["synthetic"] for row in rated)
    assert {tuple(row["votes"]) for row in rated} == {(1,) * 11}
    assert {tuple(row["prior"]) for row in rated} == {(0.6, 0.2, 0.2, 0, 0, 0)}
    assert json.loads((io.out / "manifest.json").read_text())["rater_of_made_prompts"] == (
        "judge (synthetic)"
    )
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"the-key-of-this-test" in path.read_bytes() for path in kept)
    assert "the-key-of-this-test" not in json.dumps(report)
