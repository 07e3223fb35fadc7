"""What the agent leaves on its Node: its latest report, and a ring of samples for the trends."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from pydantic import TypeAdapter, ValidationError

from components.errors import DataError
from components.preflight.report import DEAR_CHECKS, Report, from_json, to_json
from tasks.nodes.instants import parsed, rfc3339
from tasks.nodes.names import SAMPLES_ANNOTATION
from tasks.nodes.record import MAX_TEXT
from tasks.nodes.risk import Sample

_SAMPLES = TypeAdapter(tuple[Sample, ...])


@dataclass(frozen=True)
class AgentWord:
    report: Report
    failing_since_at: int | None
    """Since when each report has failed; None if the latest does not."""
    samples: tuple[Sample, ...]
    """Oldest first."""


def read_word(annotations: Mapping[str, str]) -> AgentWord | None:
    """None if there is none, or none that can be read."""
    return _read(annotations.get(SAMPLES_ANNOTATION, ""))


@lru_cache(maxsize=2048)
def _read(text: str) -> AgentWord | None:
    """Cached: the controller looks at every node whenever one of them changes.

    Of 40 kB each, for what 1,000 nodes say and said before: every heartbeat is another text.
    """
    try:
        body = json.loads(text)
        since = body.get("failing_since")
        return AgentWord(
            from_json(body["report"]),
            parsed(since) if since is not None else None,
            _SAMPLES.validate_json(json.dumps(body["samples"])),
        )
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError, DataError):
        return None


def word_json(word: AgentWord) -> str:
    body = {
        "report": to_json(_trimmed(word.report)),
        "failing_since": (
            rfc3339(word.failing_since_at) if word.failing_since_at is not None else None
        ),
        "samples": _SAMPLES.dump_python(word.samples, mode="json", exclude_none=True),
    }
    return json.dumps(body, separators=(",", ":"))


def next_word(
    before: AgentWord | None, report: Report, sample: Sample | None, max_samples: int
) -> AgentWord:
    """`sample` is None while the next is not due."""
    samples = before.samples if before is not None else ()
    since_at = None
    if report.verdict == "fail":
        since_at = before.failing_since_at if before is not None else None
        since_at = int(report.at) if since_at is None else since_at
    if sample is not None:
        samples = (*samples, sample)
    return AgentWord(report, since_at, samples[-max_samples:])


def _trimmed(report: Report) -> Report:
    """Without what passed cheaply: the annotation is no log."""
    told = tuple(
        replace(finding, message=finding.message[:MAX_TEXT])
        for finding in report.findings
        if finding.status in ("fail", "warn", "inconclusive") or finding.check in DEAR_CHECKS
    )
    return replace(report, findings=told)
