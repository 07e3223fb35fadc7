"""What a `contract.yaml` may say: tables, files and report numbers, each with expectations.

    tables:
      documents:                      # the name shown on the page
        path: documents/*             # glob of Parquet folders under the stage's output
        columns: [id, text, source]   # `folder` is the name of the matched folder
        lengths: [text]               # text_num_chars (of a list: x_num_items)
        digests: [text]               # text_digest, 64 bits; text itself goes unless `columns`
        expectations:                 # names it as well
          - {type: expect_column_values_to_not_be_null, column: id, severity: critical}
    files:                            # one row a file: path, num_bytes
      expectations: [...]
    report:                           # one row; nested keys joined with "."
      expectations: [...]

An expectation is a type of Great Expectations with its arguments. `critical` fails the stage,
`warning` shows on the page and in the log.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import UserError

COLUMN_ARGUMENTS = ("column", "column_A", "column_B")
LENGTH_UNITS = ("num_chars", "num_items")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expectation(BaseModel):
    """A type of Great Expectations; every further key is an argument of that type."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(pattern=r"^expect_[a-zA-Z_]+$")
    severity: Literal["critical", "warning", "info"]

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def columns(self) -> list[str]:
        """The columns it speaks of; empty for one about the whole table."""
        one = [self.arguments[key] for key in COLUMN_ARGUMENTS if key in self.arguments]
        return one + list(self.arguments.get("column_list", []))


class Expectations(_Part):
    expectations: list[Expectation] = Field(min_length=1)


class TableContract(Expectations):
    path: str = Field(min_length=1)
    columns: list[str] = []
    lengths: list[str] = []
    digests: list[str] = []

    @model_validator(mode="after")
    def _consistent(self) -> "TableContract":
        if self.path.startswith("/") or ".." in Path(self.path).parts:
            raise ValueError(f"path {self.path!r} must lie under the stage's output")
        lengths = {f"{column}_{unit}" for column in self.lengths for unit in LENGTH_UNITS}
        known = {*self.columns, *lengths, *(f"{column}_digest" for column in self.digests)}
        for expectation in self.expectations:
            for column in expectation.columns:
                if column not in known:
                    raise ValueError(
                        f"{expectation.type}: column {column!r} is neither in `columns` nor the "
                        "length or digest of one in `lengths` or `digests`"
                    )
        return self


class Contract(_Part):
    tables: dict[str, TableContract] = {}
    files: Expectations | None = None
    report: Expectations | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Contract":
        if not self.tables and self.files is None and self.report is None:
            raise ValueError("a contract needs `tables`, `files` or `report`")
        return self


def read_contract(path: Path) -> Contract:
    """The contract in `path`. Raises UserError, one line, if it is missing or ill-formed."""
    try:
        content = YAML(typ="safe", pure=True).load(path)
        return Contract.model_validate(content)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no contract", "write one; `components/gates` says how") from error
    except YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: not YAML: {line}", "mend the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}", "mend the contract"
        ) from error
