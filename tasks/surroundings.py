"""What a flow needs before it starts, asked in milliseconds: room to write, a Prefect that answers.

Without either, Prefect's own start takes minutes and ends in a trace.
"""

import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from components.errors import InfraError
from tasks.config import home_root, without_password

NEEDED_BYTES = 2**20
"""About what the database of a temporary Prefect server takes."""
ANSWER_TIMEOUT_S = 10.0


def require(root: Path, environ: Mapping[str, str]) -> None:
    """Raise OSError if the project cannot be written to, InfraError if Prefect's server is away."""
    home = home_root(root)
    for folder in {home / ".headrace", home / "runs", root / "runs"}:
        folder.mkdir(parents=True, exist_ok=True)
        _require_room(folder)
    url = environ.get("PREFECT_API_URL", "")
    if url:
        _require_answer(url)


def _require_room(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            file.write(bytes(NEEDED_BYTES))
            os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(folder)
            raise


def _require_answer(url: str) -> None:
    shown = without_password(url)
    try:
        with urllib.request.urlopen(f"{shown.rstrip('/')}/health", timeout=ANSWER_TIMEOUT_S):  # noqa: S310  the user's
            return
    except urllib.error.HTTPError:  # it is there, and wants to know who asks
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InfraError(
            f"Prefect at {shown} does not answer: {reason}",
            "start it (`headrace up` starts one here), or unset PREFECT_API_URL for a temporary one",
        ) from error
