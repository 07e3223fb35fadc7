"""The report travels as JSON, and into 4096 bytes, without losing what failed."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import DataError
from components.preflight.report import (
    CHECKS,
    Finding,
    Report,
    from_json,
    to_json,
    verdict_of,
)
from components.preflight.stamp import dear_until
from components.preflight.termination import MAX_BYTES, compact

STATUSES = ("ok", "warn", "fail", "skipped", "inconclusive")
FIGURES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=300)


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    status = draw(st.sampled_from(STATUSES))
    return Finding(
        draw(st.sampled_from(CHECKS)),
        status,
        draw(st.text(max_size=400)),
        status == "fail" and draw(st.booleans()),
        draw(st.none() | st.integers(0, 15)),
        draw(FIGURES),
        draw(FIGURES),
        draw(st.text(max_size=9)),
    )


REPORTS = st.builds(
    Report,
    st.from_regex(r"[a-z0-9.-]{1,253}", fullmatch=True),
    st.floats(0, 4e9),
    st.sampled_from(["cpu", "h100-sxm"]),
    st.lists(findings(), max_size=150).map(tuple),
    st.floats(0, 1e4),
    st.none() | st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    st.integers(0, 16),
)


def failed(report: Report) -> set[tuple[str, bool]]:
    return {(f.check, f.fatal) for f in report.findings if f.status == "fail"}


@settings(max_examples=40)
@given(REPORTS)
def test_a_report_comes_back_from_json_as_it_went(report: Report) -> None:
    assert from_json(json.loads(json.dumps(to_json(report)))) == report


@settings(max_examples=40)
@given(REPORTS)
def test_any_report_fits_a_termination_message_with_its_verdict_and_every_failure(
    report: Report,
) -> None:
    text = compact(report)
    assert len(text.encode()) <= MAX_BYTES
    assert "\n" not in text
    read = from_json(json.loads(text))
    assert (read.verdict, read.fatal) == (report.verdict, report.fatal)
    assert failed(read) == failed(report)
    assert (read.node, read.at, read.sku) == (report.node, report.at, report.sku)
    assert read.num_gpus_measured == report.num_gpus_measured


def worst() -> Report:
    """Every check fails on sixteen GPUs, each in many words."""
    many = tuple(
        Finding(check, "fail", f"GPU {device}: " + "x" * 200, True, device, 1.0, 2.0, "errors")
        for device in range(16)
        for check in CHECKS
    )
    return Report("n" * 253, 1.0, "h100-sxm", many, 1.0, "c" * 40)


def test_the_worst_report_still_names_every_check_and_its_gpus() -> None:
    text = compact(worst())
    assert len(text.encode()) <= MAX_BYTES
    read = from_json(json.loads(text))
    assert [finding.check for finding in read.findings] == list(CHECKS)
    assert read.findings[0].message.startswith("16 times, on GPUs 0,1,2")


def test_what_passed_is_shortened_before_what_failed() -> None:
    passed = tuple(Finding("ecc", "ok", "m" * 100, device=device) for device in range(40))
    bad = Finding("xid", "fail", "GPU 3: Xid 79", True, 3, 79.0)
    report = Report("node", 1.0, "cpu", (*passed, bad), 1.0)
    read = from_json(json.loads(compact(report)))
    assert bad in read.findings
    assert {finding.message for finding in read.findings if finding.status == "ok"} == {""}


def test_a_report_that_fits_is_left_whole() -> None:
    report = Report("node", 1.0, "cpu", (Finding("ecc", "ok", "fine"),), 1.0)
    assert from_json(json.loads(compact(report))) == report


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ([], "ok"),
        (["ok", "skipped"], "ok"),
        (["ok", "warn"], "warn"),
        (["warn", "inconclusive"], "inconclusive"),
        (["inconclusive", "fail", "warn"], "fail"),
    ],
)
def test_the_verdict_is_the_worst_finding(statuses: list[Any], verdict: str) -> None:
    assert verdict_of(Finding("ecc", status) for status in statuses) == verdict


GOOD = to_json(Report("node", 1.0, "cpu", (Finding("ecc", "fail"),), 1.0))


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {**GOOD, "version": 2},
        {**GOOD, "more": 1},
        {**GOOD, "at": "now"},
        {**GOOD, "findings": [{"check": "ecc", "status": "perhaps"}]},
        {**GOOD, "findings": "none"},
        {**GOOD, "at": float("nan")},
        {**GOOD, "node": object()},
    ],
)
def test_what_is_no_report_is_refused_in_one_line(body: Any) -> None:
    with pytest.raises(DataError, match="a pre-check's report: ") as caught:
        from_json(body)
    assert "\n" not in caught.value.message


def test_a_pods_own_word_on_its_verdict_counts_for_nothing() -> None:
    assert from_json({**GOOD, "verdict": "ok"}).verdict == "fail"


PASSED = Report(
    "node",
    1000.0,
    "cpu",
    tuple(Finding(check, "ok") for check in ("disk_speed", "memory_bandwidth", "matmul")),
    1.0,
)


def test_a_report_vouches_for_its_node_if_all_was_measured_and_nothing_failed() -> None:
    def also(*more: Finding) -> float | None:
        return dear_until(replace(PASSED, findings=(*PASSED.findings, *more)), 24, 0)

    assert dear_until(PASSED, 24, 0) == 1000 + 24 * 3600
    assert also(Finding("clock", "warn"), Finding("matmul", "warn")) == 1000 + 24 * 3600
    assert also(Finding("all_reduce", "inconclusive")) == 1000 + 24 * 3600
    assert also(Finding("ecc", "fail")) is None
    assert also(Finding("matmul", "skipped")) is None
    assert dear_until(replace(PASSED, findings=PASSED.findings[:2]), 24, 0) is None
    assert dear_until(from_json(json.loads(compact(PASSED))), 1, 0) == 1000 + 3600


@pytest.mark.parametrize(
    ("measured", "on_node", "vouches"), [(8, 8, True), (1, 8, False), (0, 8, False), (0, 0, True)]
)
def test_a_report_of_some_of_a_nodes_gpus_does_not_vouch_for_the_node(
    measured: int, on_node: int, vouches: bool
) -> None:
    until = dear_until(replace(PASSED, num_gpus_measured=measured), 24, on_node)
    assert (until is not None) is vouches
