"""What no log, message or store may hold: the environment's secrets, and those in addresses."""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO, cast
from urllib.parse import unquote

from components.addresses import HIDDEN, shown

SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:key|credentials?|auth|authorization|cookie|pat|connection_string)(?:[_-]|$)"
    r"|(?:token|secret|password|passwd|pwd)(?:[_-]|$)",
    re.IGNORECASE,
)
"""Of a variable, and of a header or a setting in one that holds JSON."""
PATH_NAME = re.compile(r"_(?:file|sock|dir|path)$|pwd$", re.IGNORECASE)
PASSWORD = re.compile(r"://[^/\s?#:@]*:([^/\s?#'\"]+)@")
"""In an address, wherever it stands."""
SECRET_PART = re.compile(
    r"(?:^|;)\s*\w*(?:key|signature|secret|password|pwd)=([^;]+)", re.IGNORECASE
)
"""In a connection string, such as AccountKey."""
COLOUR = re.compile(r"\x1b\[[\d;]*m")
MIN_CHARS = 6
"""A shorter value is no secret, and may stand in any text."""


def redacted(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without the values of variables that are named as secrets, and without addresses'.

    Of a value that is JSON (FSSPEC_HTTPS) or a connection string, its secret parts go too.
    """
    for value in sorted(_secrets(environ), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return shown(text)


def _secrets(environ: Mapping[str, str]) -> set[str]:
    found = set()
    for name, value in environ.items():
        if SECRET_NAME.search(name) and not _is_path(name, value):
            found |= {value, *SECRET_PART.findall(value)}
            if name.upper().endswith("AUTH_STRING"):  # user:password
                found.add(value.partition(":")[2])
        for password in PASSWORD.findall(value):  # as it is written and as it is meant
            found |= {password, unquote(password)}
        if value.lstrip().startswith("{"):
            found |= set(_in_json(value))
    return {value for value in found if len(value) >= MIN_CHARS}


def _is_path(name: str, value: str) -> bool:
    """Whether it says where a secret is; a key may begin with a slash too."""
    return value.startswith("/") and (bool(PATH_NAME.search(name)) or os.path.exists(value))


def _in_json(text: str) -> Iterator[str]:
    """What stands in a JSON object under a name of a secret, whole and without a scheme (`Bearer`)."""
    try:
        document = json.loads(text)
    except ValueError:
        return
    for value in _under_secret_names(document, is_secret=False):
        yield value
        yield value.rpartition(" ")[2]


def _under_secret_names(value: Any, *, is_secret: bool) -> Iterator[str]:
    if isinstance(value, str) and is_secret:
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _under_secret_names(
                inner, is_secret=is_secret or bool(SECRET_NAME.search(name))
            )
    elif isinstance(value, list):
        for inner in value:
            yield from _under_secret_names(inner, is_secret=is_secret)


class RedactedStream:
    """A stream of text that lets no secret through. What C code prints does not come this way.

    Text that holds one loses its colours, which may begin or end within it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        plain = COLOUR.sub("", text)
        hidden = redacted(plain)
        return self._stream.write(text if hidden == plain else hidden)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redact_output() -> None:
    """Let no secret through to what this process prints.

    To be called before a library's logging takes hold of the streams: Prefect's does on import.
    """
    if not isinstance(sys.stdout, RedactedStream):
        sys.stdout = cast("TextIO", RedactedStream(sys.stdout))
    if not isinstance(sys.stderr, RedactedStream):
        sys.stderr = cast("TextIO", RedactedStream(sys.stderr))
