"""Files where a user keeps them: a path, a glob, a folder, or any fsspec URL."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import split_protocol

from components.errors import DataError, InfraError, UserError
from components.schemas import content_id

GLOB_SIGNS = "*?["
NUM_DOWNLOADS = 8  # side by side: a store answers many small requests at once


def located_files(
    location: str, cache: Path, tell: Callable[[int, int], None]
) -> list[tuple[str, Path]]:
    """Name and local path of each file at `location`, sorted by name.

    What is not on this machine is downloaded to `cache` first, once; `tell` hears how many of how
    many files are here. A name is the location as the user wrote it, with the glob's part filled
    in. Raises DataError if a file is missing, UserError for an unknown or forbidden place,
    InfraError if it cannot be reached.
    """
    with _told(location):
        filesystem, path = fsspec.core.url_to_fs(location)
        found = _listed(filesystem, path)
    if "file" in _protocols(filesystem):
        relative = not Path(location.removeprefix("file://")).is_absolute()
        return [(os.path.relpath(each) if relative else each, Path(each)) for each in found]
    protocol = split_protocol(location)[0]
    urls = [each if split_protocol(each)[0] else f"{protocol}://{each}" for each in found]

    def download(url: str, remote: str) -> Path:
        with _told(url):
            local = cache / content_id(url, str(filesystem.ukey(remote)))[:16] / Path(remote).name
            _download_once(filesystem.get_file, remote, local)
        return local

    with ThreadPoolExecutor(NUM_DOWNLOADS) as pool:
        paths = []
        for path_here in pool.map(download, urls, found):
            paths.append(path_here)
            tell(len(paths), len(urls))
    return list(zip(urls, paths, strict=True))


def _listed(filesystem: Any, path: str) -> list[str]:
    if "http" in _protocols(filesystem) and "*" not in path:
        return [path]  # a page cannot be asked what it is, and `?` starts the query
    if any(sign in path for sign in GLOB_SIGNS):
        entries = filesystem.glob(path, detail=True)
        return sorted(name for name, entry in entries.items() if entry["type"] == "file")
    if filesystem.info(path)["type"] == "file":  # raises if there is nothing
        return [path]
    return sorted(filesystem.find(path))


def _download_once(get_file: Callable[[str, str], None], remote: str, local: Path) -> None:
    if local.exists():
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.with_name(local.name + ".partial")
    get_file(remote, str(partial))
    partial.rename(local)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


@contextmanager
def _told(location: str) -> Iterator[None]:
    """What a file system raises, as one line that says who must act."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{location}: no such file", "correct the source's location") from error
    except (PermissionError, ImportError, ValueError) as error:
        raise UserError(
            f"{location}: {_first_line(error)}",
            "check the address and the credentials in the environment",
        ) from error
    except Exception as error:  # each file system has its own family of errors
        status = getattr(error, "status", None)
        if isinstance(status, int) and 400 <= status < 500 and status != 429:
            raise UserError(
                f"{location}: refused with status {status}",
                "check the address and the credentials in the environment",
            ) from error
        raise InfraError(
            f"{location}: {type(error).__name__}: {_first_line(error)}",
            "check the network, then run again: what is downloaded stays",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
