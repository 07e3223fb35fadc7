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


def span(seconds: int) -> str:
    """In the largest unit that it is a whole number of: `7 days`, `24 h`, `10 min`, `90 s`."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if (seconds >= 2 * size and seconds % size == 0) or seconds == size != 86400:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _validated(value: Any) -> Any:
    return parsed(value) if isinstance(value, str) else value


Instant = Annotated[int, BeforeValidator(_validated), PlainSerializer(rfc3339)]
