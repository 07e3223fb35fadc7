"""What is read from a Node and its pods, as the API server gives them."""

from dataclasses import replace

import pytest

from components.preflight.report import Finding
from tasks.nodes.names import REPAIRED_ANNOTATION, RESET_ANNOTATION, SAMPLES_ANNOTATION
from tasks.nodes.observed import DearPass, Look, Observations, PodRef, observe, slug
from tasks.nodes.record import MAX_EVIDENCE, MAX_TEXT
from tasks.nodes.ring import next_word, read_word, word_json
from tasks.nodes.risk import Sample
from tests.unit.nodes.builders import (
    DEAR,
    DEAR_HOURS,
    FATAL,
    HOUR,
    NOW,
    OK,
    POLICY,
    SOFT,
    STATES,
    node,
    pod,
    report,
    word,
)


def look(*pods: object, at: object = None, now: int = NOW) -> Observations:
    return observe(at or node(), pods, now, POLICY, DEAR_HOURS)  # type: ignore[arg-type]


def test_a_node_without_agent_or_pods_shows_nothing() -> None:
    assert look() == Observations()


def test_a_pod_that_exits_69_is_a_failure_with_its_fatal_finding_first() -> None:
    [failed] = look(
        pod("a", phase="Failed", exit_code=69, message=report(SOFT, OK, FATAL))
    ).failures
    assert (failed.incident.id, failed.incident.at) == ("pod:uid-of-a", NOW - 60)
    assert (failed.incident.fatal, failed.incident.cause) == (True, "xid")
    assert [(e.check, e.device, e.value) for e in failed.evidence] == [
        ("xid", 3, 79.0),
        ("disk_space", None, 98.0),
    ]


@pytest.mark.parametrize("message", [None, "", "no JSON", "[]", '{"version":1}', '{"version":99}'])
def test_a_pod_that_exits_69_without_a_readable_report_is_a_soft_failure(message: str) -> None:
    [failed] = look(pod("a", phase="Failed", exit_code=69, message=message)).failures
    assert (failed.incident.fatal, failed.incident.cause) == (False, "preflight")


@pytest.mark.parametrize("exit_code", [0, 1, 64, 75, 137])
def test_no_other_exit_code_speaks_against_the_node(exit_code: int) -> None:
    seen = look(pod("a", phase="Failed", exit_code=exit_code, message=report(FATAL)))
    assert (seen.failures, seen.dear_passes) == ((), ())


def test_dear_checks_that_passed_in_a_pod_hold_as_long_as_the_nodes_kind_says() -> None:
    passed = look(
        pod("a", exit_code=0, message=report(OK, *DEAR)),  # which says it began after its end
        pod("b", exit_code=0, message=report(*DEAR, sku="new", at=NOW - 8.5), finished_at=NOW - 5),
        pod("c", exit_code=0, message=report(OK, *DEAR[:2])),
    ).dear_passes
    assert passed == (
        DearPass(NOW - 60, NOW - 60 + 12 * HOUR),
        DearPass(NOW - 5, NOW - 9 + 24 * HOUR),
    )


@pytest.mark.parametrize(
    ("sku", "measured", "gpus", "passes"),
    [
        ("h100-sxm", 8, 8, 1),
        ("h100-sxm", 1, 8, 0),  # a stage that has one of the node's GPUs
        ("cpu", 0, 8, 0),  # a stage that has none: the host's products are not the GPUs'
        ("cpu", 0, None, 1),
    ],
)
def test_a_pass_in_a_pod_counts_for_its_node_if_it_was_on_all_the_nodes_gpus(
    sku: str, measured: int, gpus: int | None, passes: int
) -> None:
    said = report(OK, *DEAR, sku=sku, num_gpus_measured=measured)
    seen = look(pod("a", exit_code=0, message=said), at=node(gpus=gpus))
    assert len(seen.dear_passes) == passes


@pytest.mark.parametrize(("agents_sku", "passes"), [("h100-sxm", 0), ("cpu", 1)])
def test_a_pass_in_a_pod_counts_for_no_node_whose_gpus_nobody_counts(
    agents_sku: str, passes: int
) -> None:
    """As while the device plugin is away, or has not come back yet after a restart."""
    said = word(OK)
    said = replace(said, report=replace(said.report, sku=agents_sku))
    stage = pod("a", exit_code=0, message=report(OK, *DEAR, sku="cpu"))
    assert len(look(stage, at=node(word=said)).dear_passes) == passes


@pytest.mark.parametrize(("measured", "dear_ok"), [(8, True), (0, False)])
def test_the_agents_pass_counts_on_all_gpus_that_it_sees_though_pods_share_them(
    measured: int, dear_ok: bool
) -> None:
    said = word(OK, *DEAR)
    said = replace(said, report=replace(said.report, num_gpus_measured=measured))
    seen = look(at=node(word=said, gpus=32))
    assert seen.report is not None
    assert (seen.report.dear_ok, len(seen.dear_passes)) == (dear_ok, int(dear_ok))


def test_the_pods_that_count_are_those_that_have_not_ended() -> None:
    alive = look(
        pod("a"), pod("b", phase="Pending", ending=True), pod("c", phase="Succeeded"),
        pod("d", phase="Failed"),
    ).stage_pods  # fmt: skip
    assert alive == (
        PodRef("team", "a", "uid-of-a", False),
        PodRef("team", "b", "uid-of-b", True),
    )


def test_the_agents_word_is_a_look_and_a_dear_pass() -> None:
    seen = look(at=node(word=word(OK, *DEAR, at=NOW - 30.5)))
    assert seen.report == Look(NOW - 31, ok=True, failing=False, dear_ok=True)
    assert seen.dear_passes == (DearPass(NOW - 31, NOW - 31 + 12 * HOUR),)


@pytest.mark.parametrize("status", ["inconclusive"])
def test_what_could_not_be_told_is_neither_a_failure_nor_well(status: str) -> None:
    open_one = Finding("clock", status)  # type: ignore[arg-type]
    seen = look(at=node(word=word(open_one, *DEAR)))
    assert seen.report == Look(NOW, ok=False, failing=False, dear_ok=False)
    assert seen.failures == ()


def test_the_word_of_an_agent_that_has_fallen_silent_counts_for_nothing() -> None:
    there = node(word=word(FATAL, at=NOW))
    assert len(look(at=there, now=NOW + POLICY.agent.silent_after_s).failures) == 1
    seen = look(at=there, now=NOW + POLICY.agent.silent_after_s + 1)
    assert (seen.report, seen.failures) == (None, ())


def test_what_the_agent_goes_on_seeing_counts_again_after_a_while_and_at_once_when_fatal() -> None:
    def identity(finding: Finding, at: int) -> str:
        said = word(finding, at=at, failing_since_at=NOW)
        [failed] = look(at=node(word=said), now=at).failures
        assert failed.incident.at == at
        return failed.incident.id

    repeat_s = STATES.soft_repeat_s
    first = identity(SOFT, NOW)
    assert identity(SOFT, NOW + repeat_s - 1) == first
    assert identity(SOFT, NOW + repeat_s) != first
    assert identity(FATAL, NOW + 1) != first


def test_requests_and_samples_are_read_from_the_annotations() -> None:
    samples = (Sample(NOW - 9, corrected_errors=3), Sample(NOW, temperature_c=50.5))
    there = node(
        word=word(OK, samples=samples),
        annotations={REPAIRED_ANNOTATION: "yesterday", RESET_ANNOTATION: "why"},
    )
    seen = look(at=there)
    assert (seen.samples, seen.repaired, seen.reset) == (samples, "yesterday", "why")


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null", '{"report": {}}', '{"samples": 3}'])
def test_an_annotation_that_cannot_be_read_is_no_word(text: str) -> None:
    assert look(at=node(annotations={SAMPLES_ANNOTATION: text})) == Observations()


def test_what_a_container_wrote_cannot_steer_a_terminal_or_fill_the_annotation() -> None:
    loud = replace(FATAL, check="x\x1b[31m y" * 30, message="\x1b[2J\n" + "m" * 9999)
    [failed] = look(pod("a", exit_code=69, message=report(*[loud] * 99))).failures
    assert len(failed.evidence) == MAX_EVIDENCE
    assert len(failed.evidence[0].message) == MAX_TEXT
    assert failed.evidence[0].message.isprintable()
    assert failed.evidence[0].check == slug(loud.check)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("xid", "xid"),
        ("a b/c", "a-b-c"),
        ("--", "unknown"),
        ("x" * 99, "x" * 63),
        ("é_", "unknown"),
    ],
)
def test_a_slug_is_a_valid_value_of_a_taint(text: str, value: str) -> None:
    assert slug(text) == value


def test_the_agents_word_comes_back_as_it_was_without_what_passed_cheaply() -> None:
    said = word(OK, *DEAR, SOFT, FATAL, failing_since_at=NOW - 5, samples=(Sample(NOW, 1, 2, 3.0),))
    back = read_word({SAMPLES_ANNOTATION: word_json(said)})
    assert back == replace(said, report=replace(said.report, findings=(*DEAR, SOFT, FATAL)))


def test_a_failure_lasts_from_its_first_report_to_the_first_that_does_not_fail() -> None:
    first = next_word(None, report(SOFT, at=NOW), None, 2)
    second = next_word(first, report(FATAL, at=NOW + 60), None, 2)
    third = next_word(second, report(OK, at=NOW + 120), None, 2)
    since = [said.failing_since_at for said in (first, second, third)]
    assert since == [NOW, NOW, None]


def test_the_ring_keeps_the_newest_samples() -> None:
    said = None
    for index in range(5):
        said = next_word(said, report(OK), Sample(NOW + index), 3)
    assert said is not None
    assert [sample.at for sample in said.samples] == [NOW + 2, NOW + 3, NOW + 4]
    assert next_word(said, report(OK), None, 3).samples == said.samples
