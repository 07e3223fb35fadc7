import hashlib
import subprocess
from pathlib import Path
from typing import Any

import fsspec
import pytest

from components.errors import DataError, UserError
from components.ingest.params import SourceParams
from components.ingest.sources import Fetched, fetch
from components.metrics import QuietSink


def fetched(tmp_path: Path, **changes: Any) -> Fetched:
    source = SourceParams.model_validate(
        {
            "name": "mine",
            "kind": "files",
            "location": f"{tmp_path}/*.txt",
            "content": "documents",
            "licence": "MIT",
        }
        | changes
    )
    return fetch(source, tmp_path / "cache", 2, QuietSink())


def test_one_file_is_known_by_its_own_digest(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one")
    wanted = hashlib.sha256(b"one").hexdigest()
    assert fetched(tmp_path).digest == wanted
    assert fetched(tmp_path, sha256=wanted).digest == wanted


def test_several_files_are_known_by_what_sha256sum_prints(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_bytes(name.encode())
    printed = subprocess.run(
        ["sha256sum", f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"], capture_output=True, check=True
    ).stdout
    assert fetched(tmp_path).digest == hashlib.sha256(printed).hexdigest()


def test_another_content_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one")
    with pytest.raises(DataError) as caught:
        fetched(tmp_path, sha256="0" * 64)
    found = hashlib.sha256(b"one").hexdigest()
    assert caught.value.message == (
        f"source mine: sha256 of {tmp_path}/*.txt is {found}, not {'0' * 64}"
    )


def test_a_glob_without_a_match_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^source mine: .*/\*\.txt matches no file$"):
        fetched(tmp_path)


def test_a_name_that_goes_into_rows_shows_no_secret(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/fetched/a.txt?token=s3cret", b"one")
    found = fetched(tmp_path, location="memory://fetched/a.txt?token=s3cret")
    assert [file.name for file in found.files] == ["memory:///fetched/a.txt?token=***"]
    with pytest.raises(DataError) as caught:
        fetched(tmp_path, location="memory://fetched/a.txt?token=s3cret", sha256="0" * 64)
    assert "s3cret" not in str(caught.value)


def test_what_went_wrong_on_the_way_names_the_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^source mine: .*/none\.html: no such file$"):
        fetched(tmp_path, location=f"{tmp_path}/none.html")
    with pytest.raises(UserError, match=r"^source mine: the corpus is botocore==0\.1, but "):
        fetched(tmp_path, kind="botocore", location="botocore==0.1 */*")
