"""The stage key: the identity of an attempt. What would change the result changes the key."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.contract import Json
from components.errors import DataError


def stage_key(stage: str, params: Mapping[str, Json], dep_digests: Mapping[str, str]) -> str:
    """12 hex digits over the stage's name, its resolved params and its dependencies' digests."""
    identity = {"stage": stage, "params": params, "deps": dict(dep_digests)}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def digest_paths(root: Path, paths: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of each file or folder, by path. Raises DataError for a missing one."""
    return {path: digest_tree(root / path) for path in paths}


def digest_tree(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's relative names and bytes.

    Contents, not times: what DVC sees as unchanged has an unchanged digest too. Compiled Python is
    left out, as `.dvcignore` does.
    """
    if path.is_file():
        return _digest_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: missing", "run the stage that writes it, or `dvc checkout`")
    lines = [f"{digest} {name}" for name, digest in _digests_below(path).items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_digests(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every single file at or below `paths`, by its path from `root`."""
    found: dict[str, str] = {}
    for path in paths:
        if (root / path).is_dir():
            below = _digests_below(root / path)
            found |= {f"{path}/{name}": digest for name, digest in below.items()}
        elif (root / path).is_file():
            found[path] = _digest_file(root / path)
    return found


def _digests_below(folder: Path) -> dict[str, str]:
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib lets go of the GIL
        digests = list(pool.map(_digest_file, files))
    return {
        str(file.relative_to(folder)): digest for file, digest in zip(files, digests, strict=True)
    }


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
