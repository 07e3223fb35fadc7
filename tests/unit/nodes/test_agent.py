"""What the agent writes on its Node, and what it answers to pods."""

import http.client
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from components.errors import InfraError
from components.preflight.inspection import Expected, inspect
from components.preflight.readings import (
    NO_ANSWER,
    NO_DRIVER,
    ClockReading,
    GpuReading,
    KernelLogReading,
    Measurements,
    Readings,
)
from components.preflight.recorded import Recording
from components.preflight.report import Finding
from components.preflight.stamp import Stamp, ask_stamp
from tasks.nodes.agent import Agent, expected_of
from tasks.nodes.condition import condition, essence, status_patch
from tasks.nodes.machine import step
from tasks.nodes.names import CONDITION, HEALTH_ANNOTATION, POOL_LABEL, SAMPLES_ANNOTATION
from tasks.nodes.observed import observe
from tasks.nodes.record import Record, to_json
from tasks.nodes.ring import AgentWord, read_word, word_json
from tasks.nodes.risk import Sample
from tasks.nodes.sampling import merged, sample_of
from tasks.nodes.stamp_server import serve
from tests.unit.nodes.builders import (
    DEAR_HOURS,
    FATAL,
    NOW,
    OK,
    POLICY,
    SOFT,
    node,
    report,
    seen,
    word,
)
from tests.unit.preflight.recordings.made import HEALTHY, THRESHOLDS, sick, xid_line

READY = {"type": "Ready", "status": "True"}


def readings(*gpus: GpuReading) -> Readings:
    log = KernelLogReading((), 1.0)
    return Readings("a", NOW + 0.5, gpus, None, (), (), ClockReading(True, 0.0), log, None, None)


def gpu(index: int, **values: object) -> GpuReading:
    return replace(GpuReading(index, "NVIDIA H100 80GB HBM3", "GPU-0", "0000:3b:00"), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("findings", "status", "reason", "message"),
    [
        ([OK, SOFT, FATAL], "False", "FatalCheckFailed", "GPU 3: Xid 79; 98% used"),
        ([SOFT], "False", "CheckFailed", "98% used"),
        ([Finding("disk_space", "inconclusive", "full")], "Unknown", "ChecksInconclusive", "full"),
        ([OK, Finding("clocks", "warn", "hot")], "True", "ChecksPass", "hot"),
        ([OK, OK], "True", "ChecksPass", "2 checks pass"),
    ],
)
def test_a_report_becomes_a_condition(
    findings: list[Finding], status: str, reason: str, message: str
) -> None:
    assert condition(report(*findings), NOW, None) == {
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": "2027-01-15T08:00:00Z",
        "lastTransitionTime": "2027-01-15T08:00:00Z",
    }


def test_a_condition_keeps_the_instant_of_its_last_change() -> None:
    before = condition(report(OK), NOW, None)
    assert condition(report(OK), NOW + 60, before)["lastTransitionTime"] == "2027-01-15T08:00:00Z"
    changed = condition(report(SOFT), NOW + 60, before)
    assert changed["lastTransitionTime"] == "2027-01-15T08:01:00Z"


def test_a_patch_of_the_status_names_the_version_and_keeps_other_conditions() -> None:
    there = node(version="41") | {"status": {"conditions": [{"type": CONDITION, "status": "True",
                                                            "lastTransitionTime": "x"}, READY]}}  # fmt: skip
    said = word(SOFT, samples=(Sample(NOW, 1),))
    body = status_patch(there, said, NOW)
    assert body["metadata"]["resourceVersion"] == "41"
    assert [(c["type"], c["status"]) for c in body["status"]["conditions"]] == [
        ("Ready", "True"),
        (CONDITION, "False"),
    ]
    assert read_word(body["metadata"]["annotations"]) == said
    assert set(body["metadata"]["annotations"]) == {SAMPLES_ANNOTATION}


def test_figures_that_move_are_no_news_and_another_device_is() -> None:
    warm = Finding("temperature", "ok", "60 C", value=60, device=1)
    assert essence(report(warm, FATAL)) == essence(report(replace(warm, value=61), FATAL))
    assert essence(report(FATAL)) != essence(report(replace(FATAL, device=4)))
    assert essence(report(FATAL)) != essence(report(replace(FATAL, fatal=False)))


def test_a_sample_has_the_sums_of_the_gpus_and_the_one_nearest_to_its_limit() -> None:
    sampled = sample_of(
        readings(
            gpu(0, rows_remapped=1, temperature_c=60, slowdown_c=90, clock_event_reasons=0x4),
            gpu(1, rows_remapped=2, temperature_c=55, slowdown_c=80, clock_event_reasons=0x40),
            gpu(2, temperature_c=40, slowdown_c=90, memory_temperature_c=80, memory_max_c=95),
            gpu(3, lost="fell off the bus"),
        ),
        17,
    )
    assert sampled == Sample(NOW, 17, 3, 80.0, 95.0, 1.0)


def test_a_node_without_gpus_has_an_empty_sample() -> None:
    assert sample_of(readings(), None) == Sample(NOW)


def test_several_looks_make_one_sample_of_the_newest_counters_and_the_worst_heat() -> None:
    looks = [
        Sample(NOW, 5, 1, 80.0, 90.0, 1.0),
        Sample(NOW + 60, 6, 1, 70.0, 75.0, 0.0),
        Sample(NOW + 120, 9, 2, 60.0, 90.0, 0.0),
    ]
    assert merged(looks) == Sample(NOW + 120, 9, 2, 70.0, 75.0, 0.333)
    assert merged([Sample(NOW)]) == Sample(NOW)


@pytest.mark.parametrize(
    ("pool", "capacity", "failing"),
    [
        ("h100", {"nvidia.com/gpu": "2"}, []),
        ("h100-sxm", {"cpu": "8"}, []),
        ("fast", None, []),
        ("h200", {"nvidia.com/gpu": "2"}, ["gpu_kind"]),
        ("h100", {"nvidia.com/gpu": "3"}, ["gpu_count"]),
    ],
)
def test_a_node_whose_gpus_are_not_those_it_says_it_has_fails(
    pool: str, capacity: dict[str, str] | None, failing: list[str]
) -> None:
    there = node(labels={POOL_LABEL: pool}) | {"status": {"capacity": capacity}}
    report = inspect(HEALTHY, THRESHOLDS, expected=expected_of(there, THRESHOLDS))
    assert [found.check for found in report.findings if found.status == "fail"] == failing


@pytest.mark.parametrize(
    ("fault", "said"),
    [(NO_DRIVER, ("default", "Unknown", False)), (None, ("default", "False", True))],
)
def test_an_agent_that_sees_none_of_eight_gpus_vouches_for_nothing_and_lets_no_repair_pass(
    fault: str | None, said: tuple[str, str, bool]
) -> None:
    host = Measurements(HEALTHY.measurements.disks, HEALTHY.measurements.bandwidths[:1],
                        HEALTHY.measurements.matmuls[:1])  # fmt: skip
    blind = replace(sick(gpus=(), gpu_fault=fault), measurements=host)
    report = inspect(blind, THRESHOLDS, dear=True, expected=expected_of(node(gpus=8), THRESHOLDS))
    at, there = int(report.at), node(gpus=8, word=AgentWord(report, None, ()))
    seen = observe(there, [], at, POLICY, DEAR_HOURS)
    assert seen.report is not None
    assert (report.sku, condition(report, NOW, None)["status"], seen.report.failing) == said
    assert (seen.report.ok, seen.report.dear_ok, seen.dear_passes) == (False, False, ())
    record = Record("repairing", NOW, repair_at=at - 1)
    assert step(record, seen, at + 1, POLICY)[0].state == "repairing"


def test_a_node_that_says_nothing_of_gpus_may_have_any() -> None:
    assert expected_of(node(labels={}), THRESHOLDS) == Expected()


GFD = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.replicas": "1"}
"""What NVIDIA's GPU feature discovery says of a node whose GPUs are neither shared nor sliced."""


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (GFD, "fail"),
        (GFD | {"nvidia.com/gpu.replicas": "2"}, "ok"),
        (GFD | {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb"}, "ok"),
        ({}, "ok"),
    ],
    ids=["whole", "shared", "sliced", "not told"],
)
def test_half_of_a_nodes_gpus_are_missing_where_the_node_says_that_none_is_shared(
    told: dict[str, str], status: str
) -> None:
    there = node(labels={POOL_LABEL: "h100", **told}, gpus=4)
    report = inspect(HEALTHY, THRESHOLDS, expected=expected_of(there, THRESHOLDS))
    (counted,) = (found for found in report.findings if found.check == "gpu_count")
    assert (counted.status, len(HEALTHY.readings.gpus)) == (status, 2)


class OneNode:
    """Its API server, which takes a patch as it is meant."""

    def __init__(self, there: dict[str, Any]) -> None:
        self.there = there

    def get(self, path: str) -> dict[str, Any]:
        return deepcopy(self.there)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path.endswith("/status")
        self.there["metadata"]["annotations"] |= body["metadata"]["annotations"]
        self.there["status"] |= body["status"]
        return self.get(path)


@pytest.mark.parametrize("how", ["a repair", "a reset of the retired node"])
@pytest.mark.parametrize(
    ("xid_s_ago", "state", "reason"),
    [
        (600.0, "probation", "repaired, and all checks pass"),
        (20.0, "repairing", "xid fails after the repair; it awaits another"),
    ],
)
def test_a_gpu_that_was_reset_without_a_restart_comes_back_unless_it_fails_anew(
    how: str, xid_s_ago: float, state: str, reason: str
) -> None:
    """The Xid that asked for the reset stays in the kernel's log."""
    now, uptime_s = int(HEALTHY.readings.at), 86400.0
    log = KernelLogReading((xid_line(95, uptime_s - xid_s_ago),), uptime_s)
    if how == "a repair":
        record, said = Record("repairing", now - 900, cause="xid"), seen(repaired="r1")
    else:
        record, said = Record("retired", now - 900, cause="xid"), seen(reset="a reset")
    record, _ = step(record, said, now - 60, POLICY)
    api = OneNode(node(gpus=2, annotations={HEALTH_ANNOTATION: to_json(record)}))
    source = sick(kernel_log=log)
    agent = Agent(api, "node-a", source, THRESHOLDS, POLICY, lambda: None, lambda: now)  # type: ignore[arg-type]
    agent.look()
    looked = observe(api.there, [], now + 1, POLICY, DEAR_HOURS)
    record, _ = step(record, replace(looked, repaired=said.repaired), now + 1, POLICY)
    assert (record.state, record.reason) == (state, reason)
    if state == "probation":
        api.there["metadata"]["annotations"][HEALTH_ANNOTATION] = to_json(record)
        again = agent.look()
        assert again is not None
        assert again.verdict == "ok"


class Saying:
    """A source that says one thing after the other, and the last again and again."""

    def __init__(self, *said: Recording) -> None:
        self._said = list(said)

    def read(self) -> Readings:
        return (self._said.pop(0) if len(self._said) > 1 else self._said[0]).readings

    def measure(self, *_: object) -> Measurements:
        return Measurements()


def agent_of(api: OneNode, source: Saying, corrected: Callable[[], int | None]) -> Agent:
    clock = HEALTHY.readings.at
    return Agent(api, "node-a", source, THRESHOLDS, POLICY, corrected, lambda: clock)  # type: ignore[arg-type]


def condition_of(api: OneNode) -> dict[str, str]:
    ours: list[dict[str, str]] = [
        one for one in api.there["status"]["conditions"] if one["type"] == CONDITION
    ]
    return ours[0]


HANGS = sick(gpus=(), gpu_fault=f"{NO_ANSWER} in 30 s")
STALE = sick(gpus=(), gpu_fault="NVML: Driver/library version mismatch")


def test_a_driver_that_hangs_between_two_questions_keeps_no_agent_from_reporting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.nodes.agent.NVML_TIMEOUT_S", 0.05)
    api, asked = OneNode(node(gpus=2)), threading.Event()

    def hangs() -> int | None:
        asked.set()
        threading.Event().wait()
        return None

    agent = agent_of(api, Saying(HEALTHY, HANGS), hangs)
    looking = threading.Thread(target=lambda: [agent.look(), agent.look()], daemon=True)
    looking.start()
    looking.join(20)
    assert not looking.is_alive()
    assert asked.is_set()
    assert "NVML: no answer in 30 s" in condition_of(api)["message"]


def test_an_agent_whose_container_has_lost_its_gpus_blames_no_node_and_is_started_again() -> None:
    api = OneNode(node(gpus=2))
    agent = agent_of(api, Saying(HEALTHY, STALE), lambda: None)
    agent.look()
    with pytest.raises(InfraError, match="version mismatch, and it answered before"):
        agent.look()
    assert condition_of(api)["status"] == "True"
    again = agent_of(api, Saying(STALE), lambda: None)
    again.look()
    again.look()
    assert condition_of(api)["status"] == "False"


def test_an_agent_without_its_gpus_still_reports_what_else_asks_for_a_drain() -> None:
    api, log = OneNode(node(gpus=2)), KernelLogReading((xid_line(119, 80.0),), 90.0)
    died = sick(gpus=(), gpu_fault="NVML: Unknown Error", kernel_log=log)
    agent = agent_of(api, Saying(HEALTHY, died), lambda: None)
    agent.look()
    agent.look()
    assert condition_of(api)["reason"] == "FatalCheckFailed"


STAMPS: list[int | None] = [None]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = serve(("127.0.0.1", 0), lambda: STAMPS[0])
    yield server.server_address[1]
    server.shutdown()


def test_the_pre_check_reads_the_stamp_that_the_agent_serves(port: int) -> None:
    STAMPS[0] = None
    assert ask_stamp("127.0.0.1", port) == Stamp(None)
    STAMPS[0] = NOW
    assert ask_stamp("127.0.0.1", port) == Stamp(float(NOW))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/", 404),
        ("GET", "/stamp/../etc/passwd", 404),
        ("POST", "/stamp", 501),
        ("PUT", "/stamp", 501),
        ("DELETE", "/stamp", 501),
    ],
)
def test_the_agent_answers_two_questions_and_no_other(
    port: int, method: str, path: str, status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert answer.getheader("Server") == "headrace"
    connection.close()


def test_the_ring_of_all_samples_stays_a_small_part_of_what_annotations_may_take() -> None:
    full = Sample(NOW, 10**6, 512, 85.0, 105.0, 0.333)
    said = word(*[FATAL] * 9, samples=(full,) * POLICY.agent.max_samples)
    assert len(word_json(said)) < 24 * 1024
