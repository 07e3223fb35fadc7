import errno
import gzip
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import botocore.exceptions
import fsspec
import gcsfs.retry
import google.auth.exceptions
import httpx2
import pytest

from components.errors import DataError, InfraError, StageError, UserError
from components.ingest.formats import open_bytes
from components.ingest.located_files import located_files


class Silent(SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, format: str, *args: object) -> None:
        self.requests.append(self.requestline)

    def do_GET(self) -> None:
        if self.path == "/forbidden.txt":
            self.send_error(403)
        elif self.path == "/broken.txt":
            self.send_error(503)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server over a folder: its address, the folder, the requests so far."""
    folder, requests = tmp_path / "site", []
    folder.mkdir()
    handler = type("Handler", (Silent,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder, requests
        running.shutdown()


def ignore(done: int, total: int) -> None:
    pass


def test_a_glob_finds_local_files_in_order_under_the_names_the_user_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.txt", "a.txt", "sub/c.txt", "other.md"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    assert [name for name, _ in located_files("data/*.txt", tmp_path, ignore)] == [
        "data/a.txt",
        "data/b.txt",
    ]
    assert [name for name, _ in located_files("data/**/*.txt", tmp_path, ignore)] == [
        "data/a.txt",
        "data/b.txt",
        "data/sub/c.txt",
    ]
    (name, path) = located_files(f"file://{tmp_path}/data/a.txt", tmp_path, ignore)[0]
    assert (name, path.read_text()) == (f"{tmp_path}/data/a.txt", "a.txt")
    assert len(located_files("data", tmp_path, ignore)) == 4


def test_a_file_whose_name_looks_like_a_glob_is_read_as_it_is(tmp_path: Path) -> None:
    for name in ("notes[1].txt", "notes1.txt", "what?.txt", "[draft]/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("notes[1].txt", "what?.txt", "[draft]/a.txt"):
        ((found, path),) = located_files(f"{tmp_path}/{name}", tmp_path, ignore)
        assert (found, path.read_text()) == (f"{tmp_path}/{name}", name)
    assert len(located_files(f"{tmp_path}/[draft]", tmp_path, ignore)) == 1
    assert len(located_files(f"{tmp_path}/notes[0-9].txt", tmp_path, ignore)) == 1


def test_a_glob_that_matches_nothing_is_an_empty_list(tmp_path: Path) -> None:
    assert located_files(f"{tmp_path}/*.txt", tmp_path, ignore) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        located_files(f"{tmp_path}/none.txt", tmp_path, ignore)


def test_an_address_is_downloaded_once_and_whole(
    tmp_path: Path, server: tuple[str, Path, list[str]]
) -> None:
    url, site, requests = server
    content = bytes(range(256)) * 4096
    (site / "a.jsonl.gz").write_bytes(content)
    told: list[tuple[int, int]] = []
    location = f"{url}/a.jsonl.gz"
    ((name, path),) = located_files(location, tmp_path / "cache", lambda *at: told.append(at))
    assert (name, path.name, path.read_bytes()) == (location, "a.jsonl.gz", content)
    assert told == [(1, 1)]
    num_downloads = sum("GET" in line for line in requests)
    located_files(location, tmp_path / "cache", ignore)
    assert sum("GET" in line for line in requests) == num_downloads
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_remote_glob_names_each_file_by_its_own_address(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b.txt", "a.txt", "c.md"):
        memory.pipe_file(f"/located/{name}", name.encode())
    found = located_files("memory://located/*.txt", tmp_path, ignore)
    assert [(name, path.read_text()) for name, path in found] == [
        ("memory:///located/a.txt", "a.txt"),
        ("memory:///located/b.txt", "b.txt"),
    ]


def test_a_missing_page_is_the_datas_fault(
    tmp_path: Path, server: tuple[str, Path, list[str]]
) -> None:
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        located_files(f"{server[0]}/none.txt", tmp_path, ignore)


def test_a_forbidden_page_is_the_users_to_open(
    tmp_path: Path, server: tuple[str, Path, list[str]]
) -> None:
    with pytest.raises(UserError, match=r"forbidden\.txt"):
        located_files(f"{server[0]}/forbidden.txt", tmp_path, ignore)


def test_a_server_that_fails_is_worth_another_try(
    tmp_path: Path, server: tuple[str, Path, list[str]]
) -> None:
    with pytest.raises(InfraError, match=r"broken\.txt"):
        located_files(f"{server[0]}/broken.txt", tmp_path, ignore)


def test_a_server_that_is_away_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"127\.0\.0\.1:9/a\.txt"):
        located_files("http://127.0.0.1:9/a.txt", tmp_path, ignore)


def test_an_unknown_protocol_is_the_users_to_correct(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gopher"):
        located_files("gopher://example.org/a.txt", tmp_path, ignore)


def test_a_query_neither_hides_the_suffix_nor_shows_its_key(
    tmp_path: Path, server: tuple[str, Path, list[str]]
) -> None:
    url, site, requests = server
    (site / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    location = f"{url}/a.txt.gz?version=2&token=s3cret"
    ((name, path),) = located_files(location, tmp_path / "cache", ignore)
    assert name == f"{url}/a.txt.gz?version=2&token=***"
    assert open_bytes(path).read() == b"text"
    assert any("token=s3cret" in line for line in requests)
    assert not any("s3cret" in str(path) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("page", ["none.txt", "forbidden.txt", "broken.txt"])
def test_no_message_shows_a_password(
    tmp_path: Path, server: tuple[str, Path, list[str]], page: str
) -> None:
    location = f"{server[0].replace('://', '://jane:s3cret@')}/{page}?token=s3cret"
    with pytest.raises(StageError) as caught:
        located_files(location, tmp_path, ignore)
    assert page in caught.value.message
    assert "s3cret" not in caught.value.message + caught.value.hint


def refused(status: int) -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, "Get")


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (botocore.exceptions.NoCredentialsError(), UserError),
        (botocore.exceptions.PartialCredentialsError(provider="x", cred_var="y"), UserError),
        (botocore.exceptions.ProfileNotFound(profile="x"), UserError),
        (google.auth.exceptions.DefaultCredentialsError("none"), UserError),
        (google.auth.exceptions.RefreshError("expired"), UserError),
        (gcsfs.retry.HttpError({"code": "403", "message": "no"}), UserError),
        (PermissionError("Access Denied"), UserError),
        (OSError(errno.EINVAL, "The bucket's name is invalid"), UserError),
        (refused(400), UserError),
        (NotADirectoryError("a.txt/b.txt"), DataError),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), InfraError),
        (botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), InfraError),
        (google.auth.exceptions.TransportError("reset"), InfraError),
        (gcsfs.retry.HttpError({"code": 503, "message": "busy"}), InfraError),
        (gcsfs.retry.HttpError({"code": 429, "message": "slow down"}), InfraError),
        (refused(503), InfraError),
        (httpx2.ConnectError("reset"), InfraError),
        (TimeoutError(), InfraError),
        (OSError(errno.EIO, "lost"), InfraError),
        # Ours: nobody gains anything by trying again.
        (TypeError("no such argument"), TypeError),
        (AttributeError("x"), AttributeError),
        (KeyError("x"), KeyError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_an_error_goes_to_whoever_must_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, wanted: type[Exception]
) -> None:
    def fail(location: str) -> None:
        raise raised

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(wanted) as caught:
        located_files("s3://bucket/a.txt", tmp_path, ignore)
    assert type(caught.value) is wanted
    if isinstance(caught.value, StageError):
        assert caught.value.message.startswith("s3://bucket/a.txt: ")
