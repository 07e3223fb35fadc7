"""What a check found, and the report of all of them: the words that the pre-check, the node agent
and the node controller share. Needs nothing but the standard library and pydantic.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from components.errors import DataError
from components.section import explain

VERSION = 1
CLOSED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Status = Literal["ok", "warn", "fail", "skipped", "inconclusive"]
Verdict = Literal["ok", "warn", "fail", "inconclusive"]

CHEAP_CHECKS = (
    "gpu_count",
    "gpu_kind",
    "gpu_lost",
    "gpu_in_use",
    "ecc",
    "row_remap",
    "recovery_action",
    "temperature",
    "clocks",
    "power_limit",
    "pcie",
    "nvlink",
    "fabric",
    "xid",
    "infiniband",
    "disk_space",
    "clock",
    "memory_pressure",
    "host_ecc",
    "stamp",
)
"""Well under a second together: made before every stage, and by the node agent all the time."""
DEAR_CHECKS = ("disk_speed", "memory_bandwidth", "matmul", "all_reduce")
"""Seconds of a device each: not repeated while the node's stamp holds."""
CHECKS = (*CHEAP_CHECKS, *DEAR_CHECKS, "clock_skew")
"""Every name that a finding's `check` can have; `clock_skew` comes with a gang's `all_reduce`."""

ON_SHARED_VOLUME = "a shared volume, so not this node's fault"
"""Ends the message of a finding that somebody must make room there, and nobody must leave the node."""


@dataclass(frozen=True)
class Finding:
    """What one check says of one device, or of the node where `device` is None."""

    __pydantic_config__ = CLOSED

    check: str
    status: Status
    message: str = ""
    """One line for people: what, where, measured, allowed."""
    fatal: bool = False
    """The node must be drained now; only a failure is fatal."""
    device: int | None = None
    value: float | str | None = None
    limit: float | str | None = None
    unit: str = ""


@dataclass(frozen=True)
class Report:
    """All findings of one look at one node."""

    __pydantic_config__ = CLOSED

    node: str
    at: float
    """Unix seconds, when the look began."""
    sku: str
    """The key of skus.yaml whose thresholds were used."""
    findings: tuple[Finding, ...]
    elapsed_s: float
    commit: str | None = None
    num_gpus_measured: int = 0
    """How many GPUs the dear checks have computed on and copied in."""

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)

    @property
    def fatal(self) -> bool:
        return any(finding.fatal for finding in self.findings)


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """The worst: a failure outweighs what could not be told, which outweighs a warning.

    What was skipped weighs nothing.
    """
    statuses = {finding.status for finding in findings}
    order: tuple[Verdict, ...] = ("fail", "inconclusive", "warn")
    return next((status for status in order if status in statuses), "ok")


def to_json(report: Report) -> dict[str, Any]:
    """For json.dumps; a finding's empty fields are left out, but not the message of what is not ok."""
    body: dict[str, Any] = {"version": VERSION, "node": report.node, "at": report.at}
    body["sku"] = report.sku
    if report.commit is not None:
        body["commit"] = report.commit
    if report.num_gpus_measured:
        body["num_gpus_measured"] = report.num_gpus_measured
    body["verdict"] = report.verdict
    body["elapsed_s"] = report.elapsed_s
    body["findings"] = [_finding_to_json(finding) for finding in report.findings]
    return body


def _finding_to_json(finding: Finding) -> dict[str, Any]:
    return {
        field.name: value
        for field in fields(finding)
        if (value := getattr(finding, field.name)) != field.default
        or (field.name == "message" and finding.status != "ok")
    }


def from_json(body: Any) -> Report:
    """What `to_json` gave, as json.loads reads it. Raises DataError for anything else.

    A pod's report is what somebody's container wrote: it is checked, and its verdict is counted
    again from its findings.
    """
    if not isinstance(body, dict) or body.get("version") != VERSION:
        raise DataError(f"a pre-check's report: not of version {VERSION}")
    told = {name: value for name, value in body.items() if name not in ("version", "verdict")}
    try:
        return _REPORT.validate_json(json.dumps(told))
    except ValidationError as error:
        raise DataError(f"a pre-check's report: {explain(error)[0]}") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"a pre-check's report: {error}") from error


_REPORT = TypeAdapter(Report)
