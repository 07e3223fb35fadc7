"""The parent of every section of params.yaml, and how a YAML file becomes one."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import UserError


class Section(BaseModel):
    """Strict (no silent conversion), closed (an unknown key is an error), finite and frozen.

    NaN passes every comparison that should refuse it, and YAML has a word for it.
    A section has no defaults: `params.yaml` is the one home of every number.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 file, read as DVC reads it (PyYAML would read `6e-4` as text and `on` as True)."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing", "run from the project's root folder") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not YAML: {error}") from error


def parse_yaml(text: str, name: str) -> Any:
    """YAML 1.2 of what JSON can hold; `name` is the text's, for messages. Raises UserError."""
    try:
        value = YAML(typ="safe", pure=True).load(text)
        json.dumps(value)
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{name}{line}: not YAML: {problem}") from error
    except TypeError as error:  # YAML knows dates, sets and bytes
        raise UserError(f"{name}: {error}", "put it in quotes, if it is meant as text") from error
    return value


def explain(error: ValidationError) -> list[str]:
    """One line for each fault: the key, what is wrong, and the value given."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "(the whole file)"
        message = fault["msg"].removeprefix("Value error, ")
        match fault["type"]:
            case "extra_forbidden":
                lines.append(f"{key}: unknown key; remove it or mend its spelling")
            case "missing":
                lines.append(f"{key}: missing; every key is written out, there are no defaults")
            case "value_error" if not fault["loc"]:  # rules between sections name the keys
                lines += message.splitlines()
            case "value_error":
                lines.append(f"{key}: {message}")
            case _:
                lines.append(
                    f"{key}: {message}, got {json.dumps(fault['input'], default=str)[:80]}"
                )
    return lines
