"""Checks a stage's output against its contract with Great Expectations.

Nothing is written but the page, nothing is sent: the context is ephemeral and its analytics are
off. Great Expectations takes 3 s to import, most of it optional back ends; whoever validates
params or lists contracts should not come here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationSuite
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.exceptions.exceptions import ExpectationNotFoundError
from great_expectations.expectations.registry import get_expectation_impl, get_renderer_impl

from components.contract import Report
from components.errors import DataError, UserError
from components.gates.contract_file import Expectation, TableContract, read_contract
from components.gates.page import render_page
from components.gates.tables import (
    ALL_ROWS_TYPES,
    Frames,
    file_frames,
    read_frames,
    report_frames,
    table_folders,
)

NUM_EXAMPLES = 5
NOT_NULL = "expect_column_values_to_not_be_null"


@dataclass(frozen=True)
class Finding:
    """One expectation and how it went."""

    table: str
    expectation: str
    sentence: str
    severity: str
    success: bool
    observed: str
    """What was seen, in words; empty if nothing needs saying."""

    @property
    def line(self) -> str:
        observed = f": {self.observed}" if self.observed else ""
        return f"{self.table}: {self.sentence} ({self.expectation}){observed}"


@dataclass(frozen=True)
class CheckedTable:
    name: str
    rule: str
    findings: Sequence[Finding]


def check_contract(
    contract: Path, out: Path, report: Report | None, page: Path | None
) -> dict[str, Any]:
    """Check what a stage wrote to `out` and says in `report`; write the page; return a summary.

    The summary holds `num_expectations`, `num_failed` and `warnings` (one line each). A report of
    None leaves the contract's report part out. Raises DataError, one line, if a critical
    expectation fails (the page is written all the same), and UserError if the contract itself is
    wrong: an unknown expectation, argument or column.
    """
    wanted = read_contract(contract)
    validator = _Validator(contract)
    tables = [
        validator.check(_table_frames(name, table, out), table.expectations)
        for name, table in wanted.tables.items()
    ]
    if wanted.files is not None:
        tables.append(validator.check(file_frames(out), wanted.files.expectations))
    if wanted.report is not None and report is not None:
        expectations = wanted.report.expectations
        finite = [
            Expectation.model_validate({"type": NOT_NULL, "column": column, "severity": "critical"})
            for column in dict.fromkeys(c for e in expectations for c in e.columns)
        ]
        tables.append(validator.check(report_frames(report), finite + expectations))

    title = contract.parent.name
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render_page(title, tables), encoding="utf-8")
    failed = [finding for table in tables for finding in table.findings if not finding.success]
    critical = [finding for finding in failed if finding.severity == "critical"]
    if critical:
        more = f" (and {len(critical) - 1} more)" if len(critical) > 1 else ""
        raise DataError(
            f"{title}: contract broken: {critical[0].line}{more}",
            f"see {page}" if page is not None else "run again with a page to see all",
        )
    return {
        "num_expectations": sum(len(table.findings) for table in tables),
        "num_failed": len(failed),
        "warnings": [finding.line for finding in failed],
    }


def _table_frames(name: str, table: TableContract, out: Path) -> Frames:
    unique = dict.fromkeys(
        column
        for expectation in table.expectations
        if expectation.type in ALL_ROWS_TYPES
        for column in expectation.columns
    )
    return read_frames(
        name,
        table_folders(out, table.path),
        columns=table.columns,
        lengths=table.lengths,
        digests=table.digests,
        unique=list(unique),
    )


class _Validator:
    """One ephemeral context of Great Expectations, for all tables of a contract."""

    def __init__(self, contract: Path) -> None:
        self._contract = contract
        context = gx.get_context(
            project_config=DataContextConfig(
                store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
                analytics_enabled=False,
                progress_bars=ProgressBarsConfig(globally=False),
            )
        )
        self._source = context.data_sources.add_pandas("output")

    def check(self, frames: Frames, expectations: Sequence[Expectation]) -> CheckedTable:
        for position, expectation in enumerate(expectations):
            self._require_columns(frames, position, expectation)
        whole = [(i, e) for i, e in enumerate(expectations) if e.type in ALL_ROWS_TYPES]
        sampled = [(i, e) for i, e in enumerate(expectations) if e.type not in ALL_ROWS_TYPES]
        findings = dict(
            self._validate(f"{frames.name}, all rows", frames.name, frames.all_rows, whole)
        )
        findings |= self._validate(frames.name, frames.name, frames.sample, sampled)
        ordered = [findings[position] for position in range(len(expectations))]
        return CheckedTable(frames.name, frames.rule, ordered)

    def _require_columns(self, frames: Frames, position: int, expectation: Expectation) -> None:
        frame = frames.all_rows if expectation.type in ALL_ROWS_TYPES else frames.sample
        for column in expectation.columns:
            if column not in frame.columns:
                has = ", ".join(map(str, frame.columns)) or "none"
                raise self._wrong(
                    frames.name, position, expectation, f"no column {column!r}; has {has}"
                )

    def _validate(
        self,
        asset: str,
        table: str,
        frame: pd.DataFrame,
        expectations: Sequence[tuple[int, Expectation]],
    ) -> Iterable[tuple[int, Finding]]:
        if not expectations:
            return
        suite = ExpectationSuite(name=asset)
        for position, expectation in expectations:
            suite.add_expectation(self._built(table, position, expectation))
        whole = self._source.add_dataframe_asset(asset).add_batch_definition_whole_dataframe("all")
        result = whole.get_batch({"dataframe": frame}).validate(
            suite,
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": NUM_EXAMPLES,
            },
        )
        for one in result.results:
            configuration: Any = one.expectation_config
            position = configuration.meta["position"]
            expectation = dict(expectations)[position]
            reason = _message(one.exception_info or {})
            if reason:
                raise self._wrong(table, position, expectation, f"not evaluated: {reason}")
            yield (
                position,
                Finding(
                    table,
                    expectation.type,
                    sentence(configuration),
                    expectation.severity,
                    bool(one.success),
                    _only_value(frame, expectation) or observed(one.result),
                ),
            )

    def _built(self, table: str, position: int, expectation: Expectation) -> Any:
        try:
            implementation = get_expectation_impl(expectation.type)
        except ExpectationNotFoundError as error:
            raise self._wrong(table, position, expectation, "unknown expectation") from error
        arguments: dict[str, Any] = expectation.arguments | {"severity": expectation.severity}
        try:
            return implementation(meta={"position": position}, **arguments)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split("\n", 1)[-1].split())
            raise self._wrong(table, position, expectation, reason) from error

    def _wrong(self, table: str, position: int, expectation: Expectation, why: str) -> UserError:
        where = f"{self._contract}: {table}: expectation {position + 1} ({expectation.type})"
        return UserError(f"{where}: {why}", "mend the contract, or what the stage writes")


def sentence(configuration: Any) -> str:
    """The expectation in words, from Great Expectations' own renderer.

    What the renderer would draw as a table (quantiles, say) is given as the plain arguments.
    """
    renderer = get_renderer_impl(configuration.type, "renderer.prescriptive")
    contents: Any = renderer[1](configuration=configuration) if renderer is not None else []
    blocks = [one if isinstance(one, dict) else one.to_json_dict() for one in contents]
    parts = [
        Template(block["string_template"]["template"]).safe_substitute(
            block["string_template"]["params"]
        )
        for block in blocks
        if "string_template" in block
    ]
    if len(parts) < max(1, len(blocks)):
        arguments = {
            k: v for k, v in configuration.kwargs.items() if k not in ("batch_id", "column")
        }
        parts.append(", ".join(f"{key} = {value}" for key, value in arguments.items()))
    return " ".join(parts)


def observed(result: dict[str, Any]) -> str:
    """What was seen: a value, or how many rows do not fit, with a few of them."""
    value = result.get("observed_value")
    if value is not None:
        return f"observed {_short(value)}"
    count = result.get("unexpected_count")
    if not count:
        return ""
    examples = ", ".join(_short(one) for one in result.get("partial_unexpected_list", []))
    such_as = f", such as {examples}" if examples else ""
    return f"{count:,} of {result['element_count']:,} rows{such_as}"


def _only_value(frame: pd.DataFrame, expectation: Expectation) -> str:
    """The value itself where the table has one row, as the report has; else empty."""
    if len(frame) != 1 or len(expectation.columns) != 1:
        return ""
    return f"observed {_short(frame[expectation.columns[0]].iloc[0])}"


def _message(info: dict[str, Any]) -> str:
    """The message of what was raised; empty if nothing was. Great Expectations nests it or not."""
    entries = [info] if "raised_exception" in info else list(info.values())
    return next((str(e["exception_message"]) for e in entries if e.get("raised_exception")), "")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
