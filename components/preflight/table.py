"""A report as people read it."""

import time
from collections.abc import Sequence

from components.preflight.report import Finding, Report, Status

ORDER: tuple[Status, ...] = ("fail", "inconclusive", "warn", "skipped", "ok")
"""Worst first."""


def table(report: Report) -> str:
    """One line for each finding; what passed or was skipped on several devices shares one."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(report.at))
    head = (
        f"pre-check of {report.node} as {report.sku}, {at} UTC: {report.verdict.upper()}"
        f" after {report.elapsed_s:.1f} s"
    )
    rows = [row for status in ORDER for row in _rows(report.findings, status)]
    return "\n".join([head, *rows])


def _rows(findings: Sequence[Finding], status: Status) -> list[str]:
    chosen = [finding for finding in findings if finding.status == status]
    if status not in ("ok", "skipped"):
        return [_row(finding, finding.message) for finding in chosen]
    groups: dict[str, list[Finding]] = {}
    for finding in chosen:
        key = finding.check if finding.device is not None else finding.check + finding.message
        groups.setdefault(key, []).append(finding)
    return [
        _row(group[0], group[0].message + (f" (+ {len(group) - 1} more)" if group[1:] else ""))
        for group in groups.values()
    ]


def _row(finding: Finding, message: str) -> str:
    word = "FATAL" if finding.fatal else finding.status.upper()
    return f"  {word:<12} {finding.check:<16} {message}"
