"""Whether what lies on the disk is what DVC recorded, by its bytes.

DVC goes by times and modes. A read-only file in its cache it takes for whole, and what it checked
out from there for what it recorded: damage in the cache would come back as a result.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import DataError
from tasks.dag import ARTIFACTS
from tasks.run_dir import lock_entry

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo

SETTLE_S = 1.0
"""How long DVC may be at writing dvc.lock."""


def dvc_digest(path: Path) -> str:
    """MD5 of a file, or of a folder's names and MD5s, as dvc.lock has it. Raises OSError."""
    if path.is_file():
        return _md5(path)
    files = sorted(
        (file for file in path.rglob("*") if file.is_file()),
        key=lambda file: file.relative_to(path).parts,
    )
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the GIL
        digests = list(pool.map(_md5, files))
    listing = [
        {"md5": digest, "relpath": file.relative_to(path).as_posix()}
        for file, digest in zip(files, digests, strict=True)
    ]
    return f"{hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()}.dir"  # noqa: S324


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _recorded(root: Path, stage: str) -> dict[str, str]:
    """Path to DVC's digest of each output that dvc.lock tells of; empty where it has none."""
    outs = (lock_entry(root, stage) or {}).get("outs", [])
    return {out["path"]: out.get("md5", "") for out in outs}


def has_lost_outputs(root: Path, stage: str) -> bool:
    """Whether an output that dvc.lock tells of is not there, so that DVC would take it from its cache."""
    return any(not (root / path).exists() for path in _recorded(root, stage))


def has_damaged_outputs(root: Path, stage: str) -> bool:
    """Whether an output is there and not what dvc.lock says; False if it says nothing."""
    return any(_is_damaged(root, stage, path) for path in _recorded(root, stage))


def _is_damaged(root: Path, stage: str, path: str) -> bool:
    digest = _recorded(root, stage).get(path)
    return bool(digest) and (root / path).exists() and dvc_digest(root / path) != digest


def require_whole_inputs(root: Path, stage: str, inputs: Sequence[str]) -> None:
    """Raise DataError for an input that is not what its stage put out: cut short, or changed by hand."""
    for name in inputs:
        path = f"{ARTIFACTS}/{name}"
        if not _is_damaged(root, name, path):
            continue
        time.sleep(SETTLE_S)  # its stage may just have ended
        if _is_damaged(root, name, path):
            drop_damaged_cache(root, name)
            raise DataError(
                f"{stage}: {path} is not what {name} put out by dvc.lock: cut short or changed",
                f"`headrace run {name}` makes it again",
            )


def drop_damaged_cache(root: Path, stage: str) -> list[str]:
    """Remove what DVC's cache holds of the stage's outputs and is not what its name says; the names.

    DVC does the same for files that are not read-only. Without them it computes the stage again.
    """
    from dvc.repo import Repo

    dropped = []
    with Repo(str(root)) as repo:
        for out in recorded_outs(repo, root, stage):
            name = out.hash_info.value
            for part in [*_members(Path(out.cache.oid_to_path(name))), name]:
                path = Path(out.cache.oid_to_path(part))
                if path.exists() and _md5(path) != part.removesuffix(".dir"):
                    path.unlink()
                    dropped.append(part)
    return dropped


def recorded_outs(repo: "Repo", root: Path, stage: str) -> "list[Output]":
    """DVC's own objects for the outputs that dvc.lock tells of, wherever this process works."""
    nodes = repo.stage.collect(f"{root / 'dvc.yaml'}:{stage}")
    return [out for node in nodes for out in node.outs if out.hash_info and out.hash_info.value]


def _members(listing: Path) -> list[str]:
    """The names that a cached folder's list holds; none of a file, or of a list that is damaged."""
    if listing.suffix != ".dir":
        return []
    try:
        return [entry["md5"] for entry in json.loads(listing.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError):
        return []
