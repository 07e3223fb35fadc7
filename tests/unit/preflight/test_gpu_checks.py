"""Each check of a GPU, from readings of healthy and sick ones."""

from typing import Any

import pytest

from components.preflight.gpu_checks import (
    check_clocks,
    check_ecc,
    check_fabric,
    check_gpu,
    check_gpu_count,
    check_gpu_in_use,
    check_gpu_kind,
    check_nvlink,
    check_pcie,
    check_power_limit,
    check_recovery_action,
    check_row_remap,
    check_temperature,
)
from components.preflight.readings import NO_DRIVER, GpuReading
from components.preflight.report import Finding
from tests.unit.preflight.recordings.made import GPU, HEALTHY, SKU, THRESHOLDS, gpu

GPUS = HEALTHY.readings.gpus


def short(finding: Finding) -> tuple[str, str, bool, int | None]:
    return finding.check, finding.status, finding.fatal, finding.device


def test_a_healthy_gpu_passes_every_check() -> None:
    findings = check_gpu(GPU, SKU.gpu, alone=False)
    assert [short(finding) for finding in findings] == [
        (check, "ok", False, 1)
        for check in (
            "gpu_lost",
            "ecc",
            "row_remap",
            "recovery_action",
            "temperature",
            "clocks",
            "power_limit",
            "pcie",
            "nvlink",
            "fabric",
        )
    ]


@pytest.mark.parametrize(
    ("used", "most", "status", "told"),
    [
        (0.4, 1.0, "ok", "GPU 1 (0000:5d:00): 0.4 GiB in use before the stage began"),
        (12.3, 1.0, "fail", "12.3 GiB in use before the stage began, allowed 1: another process"),
        (12.3, None, "ok", "12.3 GiB in use before the stage began"),
        (None, 1.0, "skipped", "not told"),
    ],
)
def test_a_gpu_that_somebody_else_uses_is_not_taken_for_a_slow_one(
    used: float | None, most: float | None, status: str, told: str
) -> None:
    finding = check_gpu_in_use(gpu(memory_used_gib=used), most)
    assert short(finding) == ("gpu_in_use", status, False, 1)
    assert told in finding.message


@pytest.mark.parametrize(
    ("changes", "check", "status", "fatal", "told"),
    [
        ({"ecc_uncorrected": 2}, "ecc", "fail", True, "2 uncorrectable memory errors"),
        ({"sram_threshold_exceeded": True}, "ecc", "fail", True, "replace it"),
        ({"ecc_enabled": False}, "ecc", "fail", False, "error correction is off"),
        ({"remap_failed": True}, "row_remap", "fail", True, "could not be replaced"),
        ({"remap_pending": True}, "row_remap", "fail", False, "waits for a reset"),
        ({"recovery_action": 1}, "recovery_action", "fail", True, "a reset of the GPU"),
        ({"recovery_action": 9}, "recovery_action", "fail", True, "action 9"),
        ({"temperature_c": 87}, "temperature", "fail", False, "87 °C, slows down at 87 °C"),
        ({"temperature_c": 82}, "temperature", "warn", False, "82 °C"),
        (
            {"memory_temperature_c": 95, "memory_max_c": 95},
            "temperature",
            "fail",
            False,
            "memory at 95 °C, allowed 95 °C",
        ),
        ({"clock_event_reasons": 0x48}, "clocks", "fail", False, "it is too hot"),
        ({"clock_event_reasons": 0x80}, "clocks", "fail", False, "power ran short"),
        ({"clock_event_reasons": 0x20}, "clocks", "warn", False, "nearly too hot"),
        ({"clock_event_reasons": 0x08}, "clocks", "warn", False, "a slowdown"),
        ({"power_limit_w": 400.0}, "power_limit", "warn", False, "400 W of 700 W"),
        ({"pcie_width": 8}, "pcie", "warn", False, "8 of 16 PCIe lanes"),
        (
            {"nvlinks_active": (True,) * 17 + (False,)},
            "nvlink",
            "fail",
            False,
            "17 of 18 NVLinks",
        ),
        ({"fabric_state": 2}, "fabric", "fail", False, "in progress"),
        ({"fabric_status": 999}, "fabric", "fail", False, "NVML's error 999"),
    ],
)
def test_one_fault_of_a_gpu_is_one_finding_that_is_not_ok(
    changes: dict[str, Any], check: str, status: str, fatal: bool, told: str
) -> None:
    findings = check_gpu(gpu(**changes), SKU.gpu, alone=False)
    (bad,) = [finding for finding in findings if finding.status != "ok"]
    assert short(bad) == (check, status, fatal, 1)
    assert told in bad.message
    assert bad.message.startswith("GPU 1 (0000:5d:00): ")


def test_a_gpu_below_the_margin_at_work_and_capped_by_its_power_is_healthy() -> None:
    assert check_temperature(gpu(temperature_c=81), 5).status == "ok"
    assert check_clocks(gpu(clock_event_reasons=0x4)).status == "ok"


def test_what_nvml_does_not_tell_is_skipped_with_its_reason_and_never_a_failure() -> None:
    bare = GpuReading(0, "NVIDIA Thing", "GPU-x", "0000:01:00", missing={"slowdown_c": "NVML: No"})
    lost, *others = check_gpu(bare, THRESHOLDS.skus["default"].gpu, alone=False)
    assert lost.status == "ok"
    assert {finding.status for finding in others} == {"skipped"}
    assert len(others) == 9
    cool = gpu(slowdown_c=None, missing={"slowdown_c": "NVML: No"})
    assert check_temperature(cool, 5).message == "GPU 1 (0000:5d:00): NVML: No"


def test_a_gpu_that_does_not_answer_is_fatal_and_judged_no_further() -> None:
    (finding,) = check_gpu(gpu(lost="NVML: GPU is lost"), SKU.gpu, alone=False)
    assert short(finding) == ("gpu_lost", "fail", True, 1)
    assert "GPU is lost" in finding.message


def test_error_correction_may_be_off_where_the_sku_does_not_ask_for_it() -> None:
    assert check_ecc(gpu(ecc_enabled=False), required=False).status == "ok"


@pytest.mark.parametrize(
    ("expected", "alone", "status"),
    [(18, False, "fail"), (18, True, "warn"), (None, False, "warn")],
)
def test_a_missing_nvlink_weighs_by_whether_anything_here_uses_it(
    expected: int | None, alone: bool, status: str
) -> None:
    down = gpu(nvlinks_active=(True, False))
    assert check_nvlink(down, expected, alone).status == status
    assert check_nvlink(gpu(nvlinks_active=None), expected, alone).status == (
        "skipped" if expected is None else status
    )


def test_a_gpu_without_a_fabric_or_a_remapper_is_skipped() -> None:
    assert check_fabric(gpu(fabric_state=0)).status == "skipped"
    assert check_row_remap(gpu(remap_failed=None)).status == "skipped"
    assert check_recovery_action(gpu(recovery_action=None)).status == "skipped"
    assert check_pcie(gpu(pcie_width=None)).status == "skipped"
    assert check_power_limit(gpu(power_default_w=None)).status == "skipped"


@pytest.mark.parametrize(
    ("seen", "expected", "status", "fatal"),
    [
        (2, 2, "ok", False),
        (2, None, "ok", False),
        (0, None, "fail", False),
        (0, 0, "ok", False),
        (1, 2, "fail", True),
        (0, 2, "fail", True),
        (2, 1, "fail", False),
    ],
)
def test_the_number_of_gpus_is_compared_with_what_the_pod_asked_for(
    seen: int, expected: int | None, status: str, fatal: bool
) -> None:
    finding = check_gpu_count(GPUS[:seen], "NVML: Driver Not Loaded", expected)
    assert short(finding) == ("gpu_count", status, fatal, None)
    assert finding.limit == expected


def test_a_machine_without_a_driver_is_no_gpu_node_and_no_failure() -> None:
    assert check_gpu_count((), NO_DRIVER, None).status == "skipped"
    assert check_gpu_count((), None, None).status == "skipped"


def test_a_container_without_the_driver_is_no_reason_to_drain_the_node_at_once() -> None:
    """It is the runtime that puts the driver there: stages with other containers compute on."""
    finding = check_gpu_count((), NO_DRIVER, 8)
    assert (finding.status, finding.fatal) == ("fail", False)
    assert finding.message == (
        "0 GPUs visible, 8 asked for (no NVIDIA driver here (libnvidia-ml.so.1): is NVIDIA's runtime "
        "the node's default, or its device plugin set to CDI?)"
    )


@pytest.mark.parametrize(
    ("seen", "on_node", "status"),
    [(2, 2, "ok"), (2, 3, "fail"), (2, 1, "ok"), (2, 8, "ok"), (2, None, "ok")],
)
def test_fewer_gpus_than_kubernetes_counts_are_a_failure_unless_it_counts_shares_of_them(
    seen: int, on_node: int | None, status: str
) -> None:
    finding = check_gpu_count(GPUS[:seen], NO_DRIVER, None, on_node)
    assert (finding.status, finding.fatal) == (status, False)


@pytest.mark.parametrize(
    ("fault", "on_node", "status"),
    [
        (NO_DRIVER, 8, "inconclusive"),
        (None, 8, "fail"),
        ("NVML: Driver Not Loaded", 8, "fail"),
        (NO_DRIVER, 0, "skipped"),
        (NO_DRIVER, None, "skipped"),
    ],
)
def test_no_gpu_where_kubernetes_counts_some_is_a_failure_if_there_is_a_driver_to_show_them(
    fault: str | None, on_node: int | None, status: str
) -> None:
    finding = check_gpu_count((), fault, None, on_node)
    assert (finding.status, finding.fatal) == (status, False)
    assert ("Kubernetes counts 8 on this node" in finding.message) is (on_node == 8)


@pytest.mark.parametrize(
    ("expected", "status"),
    [(None, "ok"), ("h100-sxm", "ok"), ("H100 80GB", "ok"), ("h200", "fail"), ("A100", "fail")],
)
def test_the_kind_is_a_key_of_the_skus_or_a_part_of_the_devices_name(
    expected: str | None, status: str
) -> None:
    assert check_gpu_kind(GPUS, SKU, expected).status == status


def test_gpus_of_two_kinds_in_one_node_are_refused() -> None:
    mixed = (GPUS[0], gpu(name="NVIDIA H200"))
    finding = check_gpu_kind(mixed, THRESHOLDS.skus["default"], None)
    assert finding.status == "fail"
    assert finding.value == "NVIDIA H100 80GB HBM3, NVIDIA H200"
