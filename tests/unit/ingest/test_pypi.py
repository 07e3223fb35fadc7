import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.errors import DataError, InfraError, UserError
from components.ingest.pypi import package_files

FILES = {
    "words/data/a.yml": b"a: 1\n",
    "words/data/sub/b.yml": b"b: 2\n",
    "words/données.txt": b"",
    "words/code.py": b"raise SystemExit('executed')\n",
    "../outside.yml": b"no\n",
}


def wheel(method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def source_archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"old-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("old-1.0/words/data/link.yml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        setup = tarfile.TarInfo("old-1.0/setup.py")
        archive.addfile(setup)
    return out.getvalue()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index on this machine with `words` (a wheel), `old` (source), `forged`."""
    folder = tmp_path / "index"
    archives = {
        "words": ("words-1.0-py3-none-any.whl", wheel(), None),
        "old": ("old-1.0.tar.gz", source_archive(), None),
        "forged": ("forged-1.0-py3-none-any.whl", wheel(), "0" * 64),
    }
    for name, (file, content, forged) in archives.items():
        page = folder / "simple" / name
        page.mkdir(parents=True)
        (page / file).write_bytes(content)
        digest = forged or hashlib.sha256(content).hexdigest()
        (page / "index.html").write_text(f'<a href="{file}#sha256={digest}">{file}</a>')
    handler = partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield folder
        server.shutdown()


def test_the_files_that_match_are_taken_out_of_a_wheel(index: Path, tmp_path: Path) -> None:
    archive, files = package_files("words==1.0", "words/data/**/*.yml", tmp_path / "cache")
    assert archive.read_bytes() == wheel()
    assert [(name, path.read_bytes()) for name, path in files] == [
        ("words==1.0/words/data/a.yml", b"a: 1\n"),
        ("words==1.0/words/data/sub/b.yml", b"b: 2\n"),
    ]


def test_a_source_archive_is_read_and_never_executed(index: Path, tmp_path: Path) -> None:
    _, files = package_files("old==1.0", "**/*.yml", tmp_path / "cache")
    # Neither the link nor the name that leads out of the archive.
    assert [name for name, _ in files] == [
        "old==1.0/old-1.0/words/data/a.yml",
        "old==1.0/old-1.0/words/data/sub/b.yml",
    ]
    assert not (tmp_path / "cache/pypi/old==1.0/outside.yml").exists()


def test_what_is_in_the_cache_is_not_fetched_again(index: Path, tmp_path: Path) -> None:
    first = package_files("words==1.0", "**/*.yml", tmp_path / "cache")
    (index / "simple/words/words-1.0-py3-none-any.whl").unlink()
    assert package_files("words==1.0", "**/*.yml", tmp_path / "cache") == first


@pytest.mark.parametrize("requirement", ["words==2.0", "nothing==1.0"])
def test_a_package_the_index_does_not_have_is_named(
    index: Path, tmp_path: Path, requirement: str
) -> None:
    with pytest.raises(DataError, match=f"pypi: the index has no {requirement}"):
        package_files(requirement, "*", tmp_path / "cache")


def test_an_archive_of_another_digest_is_refused(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pypi: forged==1\.0: "):
        package_files("forged==1.0", "*", tmp_path / "cache")
    assert not (tmp_path / "cache/pypi/forged==1.0/archive").exists()


def test_a_name_that_is_no_requirement_is_the_users_to_correct(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not NAME==VERSION"):
        package_files("wo rds==", "*", tmp_path / "cache")


def test_an_index_that_is_away_is_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(InfraError, match=r"pypi: words==1\.0"):
        package_files("words==1.0", "*", tmp_path / "cache")


def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cache/pypi/words==1.0/archive"
    folder.mkdir(parents=True)
    (folder / "words-1.0-py3-none-any.whl").write_bytes(wheel()[:-30])
    with pytest.raises(DataError, match=r"words-1\.0-py3-none-any\.whl: not a whole archive"):
        package_files("words==1.0", "**/*.yml", tmp_path / "cache")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_archive_that_is_damaged_is_refused_wherever_the_damage_is(
    tmp_path: Path, method: int
) -> None:
    whole = wheel(method)
    archive = tmp_path / "cache/pypi/words==1.0/archive/words-1.0-py3-none-any.whl"
    archive.parent.mkdir(parents=True)
    refusals = []
    for place in range(0, len(whole) - 4, 3):
        archive.write_bytes(whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :])
        try:
            package_files("words==1.0", "**/*.yml", tmp_path / "cache")
        except DataError as error:
            refusals.append(error.message)
        shutil.rmtree(archive.parent.parent / "files", ignore_errors=True)
    assert len(refusals) > 50  # a changed date or name is nothing that a reader can tell
    begin = "words-1.0-py3-none-any.whl: not a whole archive ("
    assert all(message.startswith(begin) for message in refusals)
