"""Addresses as they may be shown: in messages, logs, rows and the manifest."""

import re
from collections.abc import Iterator
from typing import Any

HIDDEN = "***"
# `user:password@` before a host. In `github://owner:repository@revision` it is no secret.
USER_INFO = re.compile(r"(?<!\bgithub)(?<!\bgit)://[^/\s?#]*@")
# Keys and signatures in a query, such as X-Amz-Signature, sig (Azure) and access_token.
SECRET_VALUE = re.compile(
    r"([?&;][\w.%-]*(?:key|keyid|token|secret|sig|signature|password|passwd|pwd|credentials?"
    r"|auth|authorization|accessid)=)[^&;\s#'\")]+",
    re.IGNORECASE,
)
# An address, or what urllib3 says of one: "url: /v1?api_key=...".
ADDRESS = re.compile(r"://|(?:^|[\s'\"(])/[^\s'\"]*\?")


def shown(text: str) -> str:
    """`text` with the passwords, keys and signatures of every address in it hidden.

    The address stays the same however often the secret is changed, and doing it twice changes
    nothing more.
    """
    if not ADDRESS.search(text):
        return text
    return SECRET_VALUE.sub(rf"\1{HIDDEN}", USER_INFO.sub(f"://{HIDDEN}@", text))


def with_secrets(values: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of nested dicts and lists under which an address with a secret stands."""
    if isinstance(values, str) and shown(values) != values:
        yield key
    elif isinstance(values, dict | list):
        for name, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from with_secrets(value, f"{key}.{name}" if key else str(name))
