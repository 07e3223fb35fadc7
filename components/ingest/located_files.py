"""Files where a user keeps them: a path, a glob, a folder, or any fsspec URL."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import split_protocol

from components.addresses import shown
from components.errors import DataError, InfraError, StageError, UserError
from components.schemas import content_id

GLOB_SIGNS = "*?["
USERS_ERRNOS = (errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP)
"""EINVAL is what s3fs makes of a request that the store finds wrong."""
NUM_DOWNLOADS = 8  # side by side: a store answers many small requests at once


def located_files(
    location: str, cache: Path, tell: Callable[[int, int], None]
) -> list[tuple[str, Path]]:
    """Name and local path of each file at `location`, sorted by name.

    What is not on this machine is downloaded to `cache` first, once; `tell` hears how many of how
    many files are here. A name is the location as the user wrote it, with the glob's part filled
    in and secrets hidden. Raises DataError if a file is missing, UserError for an unknown or
    forbidden place, InfraError if it cannot be reached.
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
            name = Path(
                remote.partition("?")[0]
            ).name  # a query may hold a key, and ends in no suffix
            local = cache / content_id(url, str(filesystem.ukey(remote)))[:16] / name
            _download_once(filesystem.get_file, remote, local)
        return local

    with ThreadPoolExecutor(NUM_DOWNLOADS) as pool:
        paths = []
        for path_here in pool.map(download, urls, found):
            paths.append(path_here)
            tell(len(paths), len(urls))
    return list(zip(map(shown, urls), paths, strict=True))


def _listed(filesystem: Any, path: str) -> list[str]:
    if "http" in _protocols(filesystem) and "*" not in path:
        return [path]  # a page cannot be asked what it is, and `?` starts the query
    literal = "file" in _protocols(filesystem) and os.path.lexists(path)  # such as `notes[1].txt`
    if not literal and any(sign in path for sign in GLOB_SIGNS):
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
    """What a file system raises, as one line that says who must act; anything else is a bug."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{shown(location)}: no such file", "correct the source's location"
        ) from error
    except (PermissionError, ImportError, ValueError) as error:
        raise _users(location, _first_line(error)) from error
    except _remote_errors() as error:
        raise _of_remote(location, error) from error


def _remote_errors() -> tuple[type[Exception], ...]:
    """The families of errors of the file systems that are installed: http, s3, gs and hf.

    Imported only when something has gone wrong: together they take seconds.
    """
    import aiohttp
    import botocore.exceptions
    import gcsfs.retry
    import google.auth.exceptions
    import httpx2  # huggingface_hub's client

    return (
        *(OSError, EOFError, aiohttp.ClientError),
        *(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError),
        *(google.auth.exceptions.GoogleAuthError, gcsfs.retry.HttpError),
        *(gcsfs.retry.ChecksumError, gcsfs.retry.NonRetryableError),
        httpx2.HTTPError,
    )


def _of_remote(location: str, error: Exception) -> StageError:
    """A refusal, missing credentials and an impossible address are the user's; the rest may pass."""
    status = _status(error)
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return _users(location, f"refused with status {status}")
    if _is_about_credentials(error) or getattr(error, "errno", None) in USERS_ERRNOS:
        return _users(location, f"{type(error).__name__}: {_first_line(error)}")
    return InfraError(
        f"{shown(location)}: {type(error).__name__}: {_first_line(error)}",
        "check the network, then run again: what is downloaded stays",
    )


def _status(error: Exception) -> int | None:
    """The HTTP status that an error carries, wherever its library keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for status in (
        getattr(error, "status", None),  # aiohttp's
        getattr(error, "code", None),  # gcsfs's
        getattr(response, "status_code", response),  # huggingface_hub's
    ):
        if str(status).isdecimal():
            return int(str(status))
    return None


def _is_about_credentials(error: Exception) -> bool:
    """Whether credentials or their configuration are missing or refused."""
    import google.auth.exceptions as google
    from botocore import exceptions as botocore

    if isinstance(error, botocore.BotoCoreError):  # all but these is configuration
        passing = (
            *(botocore.HTTPClientError, botocore.ConnectionError, botocore.IncompleteReadError),
            *(botocore.ChecksumError, botocore.FlexibleChecksumError),
            *(botocore.MetadataRetrievalError, botocore.CapacityNotAvailableError),
        )
        return not isinstance(error, passing)
    return isinstance(error, google.GoogleAuthError) and not (
        error.retryable or isinstance(error, google.TransportError | google.TimeoutError)
    )


def _users(location: str, what: str) -> UserError:
    return UserError(
        f"{shown(location)}: {what}", "check the address and the credentials in the environment"
    )


def _first_line(error: Exception) -> str:
    return shown((str(error).splitlines() or [type(error).__name__])[0])
