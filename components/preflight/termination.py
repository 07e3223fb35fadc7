"""A report that fits a pod's termination message, from which the node controller reads it.

Kubernetes keeps 4096 bytes of a container's message. What is left out first is what passed; a
failed check is never left out, at most joined with the same check's failures on other devices.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from components.preflight.report import Finding, Report, Status, to_json, verdict_of

MAX_BYTES = 4096

Findings = tuple[Finding, ...]


def compact(report: Report, max_bytes: int = MAX_BYTES) -> str:
    """One line of JSON of at most `max_bytes` that `from_json` reads, with the same verdict.

    It fits for any number of findings whose `check` is one of report.CHECKS.
    """
    findings = report.findings
    text = _text(report, findings)
    for shorten in STEPS:
        if len(text.encode()) <= max_bytes:
            break
        findings = shorten(findings)
        text = _text(report, findings)
    return text


def _text(report: Report, findings: Findings) -> str:
    body = to_json(replace(report, findings=findings))
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _bare(findings: Findings) -> Findings:
    return tuple(
        Finding(finding.check, "ok", device=finding.device) if finding.status == "ok" else finding
        for finding in findings
    )


def _joined(*statuses: Status) -> Callable[[Findings], Findings]:
    """One finding for all devices of a check that came out the same."""

    def shorten(findings: Findings) -> Findings:
        groups: dict[tuple[str, Status, bool], list[Finding]] = {}
        kept: list[Finding | list[Finding]] = []
        for finding in findings:
            if finding.status not in statuses:
                kept.append(finding)
                continue
            key = (finding.check, finding.status, finding.fatal)
            if key not in groups:
                groups[key] = []
                kept.append(groups[key])
            groups[key].append(finding)
        return tuple(_one(item) if isinstance(item, list) else item for item in kept)

    return shorten


def _one(group: Sequence[Finding]) -> Finding:
    if len(group) == 1:
        return group[0]
    first = group[0]
    if first.status in ("ok", "skipped"):
        return Finding(first.check, first.status)
    devices = sorted({finding.device for finding in group if finding.device is not None})
    where = f", on GPUs {','.join(map(str, devices))}" if devices else ""
    return replace(first, device=None, message=f"{len(group)} times{where}: {first.message}")


def _without(*statuses: Status) -> Callable[[Findings], Findings]:
    def shorten(findings: Findings) -> Findings:
        return tuple(finding for finding in findings if finding.status not in statuses)

    return shorten


def _cut(length: int) -> Callable[[Findings], Findings]:
    def shorten(findings: Findings) -> Findings:
        return tuple(
            replace(
                finding,
                message=finding.message[:length],
                unit=finding.unit[:length],
                value=_cut_text(finding.value, length),
                limit=_cut_text(finding.limit, length),
            )
            for finding in findings
        )

    return shorten


def _cut_text(value: float | str | None, length: int) -> float | str | None:
    return value[:length] if isinstance(value, str) else value


def _without_figures(findings: Findings) -> Findings:
    return tuple(replace(finding, value=None, limit=None) for finding in findings)


def _without_lesser(findings: Findings) -> Findings:
    """Only the worst kind, so that the verdict stays what it is."""
    worst = verdict_of(findings)
    return tuple(finding for finding in findings if finding.status == worst)


STEPS: tuple[Callable[[Findings], Findings], ...] = (
    _bare,
    _joined("ok", "skipped"),
    _joined("warn"),
    _joined("fail", "inconclusive"),
    _cut(200),
    _cut(100),
    _cut(40),
    _without("skipped"),
    _without("ok"),
    _without_lesser,
    _cut(0),
    _without_figures,
)
