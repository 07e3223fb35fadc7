"""The default corpus: the API models inside the installed botocore, one page for each operation."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from components.errors import DataError, UserError


@dataclass(frozen=True)
class Member:
    """A field of an operation's input or output."""

    name: str
    type: str
    required: bool
    documentation: str  # HTML; may be empty


@dataclass(frozen=True)
class Operation:
    """One operation of a service, as its model documents it."""

    service: str  # the full name, such as `Amazon DynamoDB`
    name: str
    path: str  # service/version/operation: unique
    documentation: str  # HTML; may be empty
    parameters: tuple[Member, ...]
    output: tuple[Member, ...]


def data_folder(requirement: str) -> Path:
    """Where the installed botocore keeps its models; raises UserError if it is another version.

    `requirement` is `botocore==VERSION`: the text is pinned as every other input is.
    """
    name, _, wanted = requirement.partition("==")
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = "none"
    if installed != wanted:
        raise UserError(
            f"the corpus is {requirement}, but {installed} is installed",
            f"install the locked requirements, or set location to botocore=={installed}",
        )
    return Path(str(metadata.distribution(name).locate_file("botocore/data")))


def model_files(data: Path, pattern: str) -> list[Path]:
    """The models whose `<service>/<version>` matches the glob, sorted by service and version."""
    return sorted(data.glob(f"{pattern}/service-2.json*"))


def read_operations(path: Path) -> Iterator[Operation]:
    """The operations of one model file (`<service>/<version>/service-2.json.gz`), by name."""
    try:
        raw = path.read_bytes()
        model = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise DataError(f"{path}: not a whole API model ({error})", "reinstall botocore") from error
    shapes = model["shapes"]
    service = model["metadata"].get("serviceFullName") or path.parent.parent.name
    folder = f"{path.parent.parent.name}/{path.parent.name}"
    for name, operation in sorted(model["operations"].items()):
        yield Operation(
            service=service,
            name=name,
            path=f"{folder}/{name}",
            documentation=operation.get("documentation", ""),
            parameters=_members(shapes, operation.get("input")),
            output=_members(shapes, operation.get("output")),
        )


def _members(shapes: dict[str, Any], reference: dict[str, str] | None) -> tuple[Member, ...]:
    if reference is None:
        return ()
    structure = shapes[reference["shape"]]
    required = set(structure.get("required", ()))
    return tuple(
        Member(
            name=name,
            type=shapes[member["shape"]]["type"],
            required=name in required,
            documentation=member.get("documentation")
            or shapes[member["shape"]].get("documentation", ""),
        )
        for name, member in structure.get("members", {}).items()
    )


def render(operation: Operation) -> str:
    """The operation as an HTML page: title, description, parameters, output."""
    title = escape(f"{operation.service}: {operation.name}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><main><h1>{title}</h1>{operation.documentation}"
        f"{_definitions('Parameters', operation.parameters)}"
        f"{_definitions('Output', operation.output)}</main></body></html>"
    )


def _definitions(heading: str, members: tuple[Member, ...]) -> str:
    if not members:
        return ""
    entries = "".join(
        f"<dt><code>{escape(member.name)}</code> ({member.type}"
        f"{', required' if member.required else ''})</dt><dd>{member.documentation}</dd>"
        for member in members
    )
    return f"<h2>{heading}</h2><dl>{entries}</dl>"
