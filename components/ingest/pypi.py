"""Files inside a Python package, from its wheel or source archive. Nothing of it is executed."""

import logging
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from fsspec.utils import glob_translate
from packaging.requirements import InvalidRequirement, Requirement

from components.addresses import shown
from components.errors import DataError, InfraError, UserError

BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, NotImplementedError, RuntimeError),  # zipfile: names, methods and flags
)
"""What reading a damaged archive raises, depending on where the damage is."""


def package_files(
    requirement: str, pattern: str, cache: Path
) -> tuple[Path, list[tuple[str, Path]]]:
    """The archive, and name and path of each file in it that matches the glob `pattern`.

    `requirement` is NAME==VERSION; the index is the one that PIP_INDEX_URL names, if it is set,
    and its digest of the archive is checked. Of a wheel and a source archive the wheel is taken.
    Archive and files stay in `cache`. Raises DataError if there is no such package, InfraError if
    the index cannot be reached.
    """
    folder = cache / "pypi" / requirement
    archive = _download(requirement, folder / "archive")
    matches = re.compile(glob_translate(pattern.lstrip("/")))
    root = folder / "files"
    names = []
    try:
        for name, content in _members(archive):
            if not matches.match(name):
                continue
            path = root / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(path.name + ".partial")
                with partial.open("wb") as file:
                    shutil.copyfileobj(content, file)
                partial.rename(path)
            names.append(name)
    except BROKEN as error:
        raise DataError(
            f"{archive.name}: not a whole archive ({error})", f"delete {archive} and run again"
        ) from error
    return archive, [(f"{requirement}/{name}", root / name) for name in sorted(names)]


def _download(requirement: str, folder: Path) -> Path:
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement as error:
        raise UserError(f"pypi: {requirement!r} is not NAME==VERSION", "correct it") from error
    done = sorted(folder.glob("*")) if folder.exists() else []
    if done:
        return done[0]
    from unearth import PackageFinder
    from unearth.errors import HashMismatchError, UnpackError
    from unearth.preparer import HTTPErrors

    index = os.environ.get("PIP_INDEX_URL")
    finder = PackageFinder(index_urls=[index] if index else [], ignore_compatibility=True)
    failures: tuple[type[Exception], ...] = (UnpackError, OSError, *HTTPErrors)
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _warnings_of("unearth.collector") as warnings:
            best = finder.find_best_match(wanted, allow_yanked=True).best
        if best is None and warnings and "404" not in warnings[0]:
            raise InfraError(
                f"pypi: {requirement}: {shown(warnings[0])}", "check the network and the index"
            )
        if best is None:
            raise DataError(
                f"pypi: the index has no {requirement}", "check the name and the version"
            )
        name = Path(finder.download(best.link, partial)).name
    except HashMismatchError as error:
        raise DataError(
            f"pypi: {requirement}: {shown(str(error))}", "the index and its file differ"
        ) from error
    except failures as error:
        raise InfraError(
            f"pypi: {requirement} cannot be downloaded ({type(error).__name__})",
            "check the network and PIP_INDEX_URL, then run again",
        ) from error
    partial.rename(folder)
    return folder / name


@contextmanager
def _warnings_of(logger_name: str) -> Iterator[list[str]]:
    """The warnings logged meanwhile: unearth logs that an index failed, and goes on without it."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(logger_name)
    logger.addHandler(handler)
    try:
        yield warnings
    finally:
        logger.removeHandler(handler)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file; names that would leave the folder are passed over."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and _stays_inside(info.filename):
                    with zipped.open(info) as content:
                        yield info.filename, content
        return
    with tarfile.open(archive) as tarred:
        for member in tarred:
            if member.isfile() and _stays_inside(member.name):
                content_or_none = tarred.extractfile(member)
                if content_or_none is not None:
                    yield member.name, content_or_none


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
