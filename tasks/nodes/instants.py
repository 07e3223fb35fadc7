"""Instants are whole Unix seconds inside, and RFC 3339 in UTC on the Node, as Kubernetes writes its own."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime(FORMAT)


def parsed(text: str) -> int:
    """Fractions of a second are cut off. Raises ValueError."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return int(instant.timestamp())


def _validated(value: Any) -> Any:
    return parsed(value) if isinstance(value, str) else value


Instant = Annotated[int, BeforeValidator(_validated), PlainSerializer(rfc3339)]
