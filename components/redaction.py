"""What no log, message or store may hold: the environment's secrets, and those in addresses."""

import os
import re
from collections.abc import Mapping
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

from components.addresses import HIDDEN, shown

SECRET_NAME = re.compile(
    r"(?:^|_)(?:key|token|secret|password|passwd|credentials?|auth|pat)(?:_|$)", re.IGNORECASE
)
MIN_CHARS = 6
"""A shorter value is no secret, and may stand in any text."""


def redacted(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without the values of variables that are named as secrets, and without addresses'."""
    for value in sorted(_secrets(environ), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return shown(text)


def _secrets(environ: Mapping[str, str]) -> set[str]:
    found = {value for name, value in environ.items() if SECRET_NAME.search(name)}
    for value in environ.values():
        if "://" in value and "@" in value:
            found |= _passwords(value)
    return {value for value in found if len(value) >= MIN_CHARS and not value.startswith("/")}


def _passwords(address: str) -> set[str]:
    """An address's password, as it is written and as it is meant."""
    try:
        password = urlsplit(address).password or ""
    except ValueError:
        return set()
    return {password, unquote(password)}


class RedactedStream:
    """A stream of text that lets no secret through. What C code prints does not come this way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(redacted(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
