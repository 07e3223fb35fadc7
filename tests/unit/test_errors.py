import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from components.errors import disk_error

HERE = Path("/data/out")
FULL = "No space left on device"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(28, FULL), "infra", f"{FULL}: /data/out"),
        (OSError(28, FULL, "/data/out/shard"), "infra", f"{FULL}: /data/out/shard"),
        # numpy, safetensors, Arrow, shutil.copytree and DVC as they are on a full disk
        (OSError("100000 requested and 8176 written"), "infra", f"{FULL}: /data/out"),
        (SafetensorError(f"I/O error: {FULL} (os error 28)"), "infra", f"{FULL}: /data/out"),
        (OSError(f"[Errno 28] Error writing bytes. Detail: {FULL}"), "infra", f"{FULL}: /data/out"),
        (
            OSError([("/a", "/b", f"[Errno 28] {FULL}: '/a' -> '/b'")]),
            "infra",
            f"{FULL}: /data/out",
        ),
        (f"failed to reproduce 'left': [Errno 28] {FULL}", "infra", f"{FULL}: /data/out"),
        (OSError(30, "Read-only file system", "/x"), "infra", "Read-only file system: /x"),
        (PermissionError(13, "Permission denied", "/x/y"), "user", "Permission denied: /x/y"),
        (
            PermissionError(1, "Operation not permitted", "/x"),
            "user",
            "Operation not permitted: /x",
        ),
    ],
)
def test_what_a_disk_refused_says_what_where_and_what_next(
    error: Exception | str, kind: str, message: str
) -> None:
    found = disk_error(error, HERE)
    assert found is not None
    assert (found.kind, found.message) == (kind, message)
    assert "run it again" in found.hint


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, os.strerror(2), "/x"),
        PermissionError(13, "Permission denied"),  # of a socket or a signal
        RuntimeError("28 things are wrong"),
        ValueError("100 requested and 8 written, or so"),
    ],
)
def test_any_other_error_is_not_the_disks(error: Exception) -> None:
    assert disk_error(error, HERE) is None
