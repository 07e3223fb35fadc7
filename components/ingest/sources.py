"""From a source in params.yaml to files on this machine, each with its digest."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from components.addresses import shown
from components.contract import Sink
from components.errors import DataError, StageError
from components.ingest import api_models, debian, pypi
from components.ingest.located_files import located_files
from components.ingest.params import SourceParams


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, readable here."""

    path: Path
    name: str
    """What it is called in rows, manifest and messages: the same on every machine."""
    num_bytes: int
    sha256: str = ""
    """Empty for a file out of a package, whose archive is what was pinned."""


@dataclass(frozen=True)
class Fetched:
    """A source whose files are all here."""

    files: tuple[SourceFile, ...]
    """Sorted by name; never empty."""
    digest: str
    """Of one file, or of the package they came in: its SHA-256. Of several files: the SHA-256 of
    the lines that `sha256sum` prints for them."""


def fetch(source: SourceParams, cache: Path, num_workers: int, sink: Sink) -> Fetched:
    """Bring a source's files here and verify them.

    What is downloaded goes to `cache`, once. Raises UserError or DataError, naming source and file,
    for what is missing, empty or of another digest; InfraError if the network fails.
    """
    try:
        files, pinned = _brought_here(source, cache, sink)
    except StageError as error:
        raise type(error)(f"source {source.name}: {error.message}", error.hint) from error
    if not files:
        raise DataError(
            f"source {source.name}: {shown(source.location)} matches no file",
            "correct its location",
        )
    digests = sha256_of_each(pinned, num_workers)
    digest = digest_of(pinned, digests)
    if source.sha256 is not None and source.sha256 != digest:
        raise DataError(
            f"source {source.name}: sha256 of {shown(source.location)} is {digest}, "
            f"not {source.sha256}",
            "fetch it again, or correct sha256 if the new content is meant",
        )
    sha256_at = {file.path: sha256 for file, sha256 in zip(pinned, digests, strict=True)}
    known = (replace(file, sha256=sha256_at.get(file.path, "")) for file in files)
    return Fetched(tuple(known), digest)


def _brought_here(
    source: SourceParams, cache: Path, sink: Sink
) -> tuple[list[SourceFile], list[SourceFile]]:
    """The source's files, and those that its digest is of."""
    match source.kind:
        case "botocore":
            files = _api_model_files(source)
            return files, files
        case "files":
            tell = partial(sink.progress, unit="files", source=source.name)
            here = located_files(source.location, cache, tell)
            files = [_file(name, path) for name, path in here]
            return files, files
        case "deb" | "pypi":
            reader = debian if source.kind == "deb" else pypi
            package, pattern = source.location.split()
            archive, found = reader.package_files(package, pattern, cache)
            files = [_file(name, path) for name, path in found]
            return files, [_file(archive.name, archive)]


def sha256_of_each(files: Sequence[SourceFile], num_workers: int) -> list[str]:
    with ThreadPoolExecutor(num_workers) as pool:  # hashing leaves the interpreter lock
        return list(pool.map(file_sha256, (file.path for file in files)))


def digest_of(files: Sequence[SourceFile], digests: Sequence[str]) -> str:
    """The SHA-256 of one file, or of the `<sha256>  <name>` lines of several."""
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _api_model_files(source: SourceParams) -> list[SourceFile]:
    package, pattern = source.location.split()
    data = api_models.data_folder(package)
    return [
        _file(f"{package}/{path.relative_to(data).as_posix()}", path)
        for path in api_models.model_files(data, pattern)
    ]


def _file(name: str, path: Path) -> SourceFile:
    return SourceFile(path, name, path.stat().st_size)
