"""The pre-check on a real GPU: what NVML says of it, and that it computes exactly."""

import json
from pathlib import Path

import pytest
import torch

from components.preflight.__main__ import main
from components.preflight.burn import burn
from components.preflight.live import measure_gpus
from components.preflight.matmul import digest, square_problem
from components.preflight.nvml import read_gpus
from components.preflight.recorded import load
from components.preflight.report import from_json
from components.preflight.thresholds import load_thresholds

GPUS = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def test_nvml_shows_the_gpus_that_torch_sees() -> None:
    gpus, fault = read_gpus()
    assert fault is None
    assert [gpu.name for gpu in gpus] == [torch.cuda.get_device_name(gpu) for gpu in GPUS]
    for gpu in gpus:
        assert gpu.lost is None
        assert gpu.temperature_c is not None
        assert 10 < gpu.temperature_c < 100
        assert gpu.sm_clock_max_mhz is not None
        assert gpu.sm_clock_max_mhz > 500
        assert gpu.clock_event_reasons is not None
        assert len(gpu.pci.split(":")) == 3


def test_every_gpu_computes_the_digest_that_the_cpu_knows() -> None:
    expected = digest(square_problem(2048).answer)
    for figure in burn(GPUS, 2048, 0.5):
        assert figure.rounds > 10
        assert figure.wrong == 0
        assert figure.digest == figure.expected_digest == expected


def test_the_child_measures_bandwidth_and_products_of_every_gpu() -> None:
    names = tuple(gpu.name for gpu in read_gpus()[0])
    limits = load_thresholds().sku_of(names).gpu.model_copy(update={"burn_s": 2.0})
    measured = measure_gpus(len(GPUS), limits)
    assert measured.gpu_fault is None
    assert [figure.device for figure in measured.bandwidths] == list(range(len(GPUS)))
    assert all(figure.gb_per_s > 50 for figure in measured.bandwidths)
    assert all(figure.wrong == 0 and figure.tflops > 1 for figure in measured.matmuls)


@pytest.mark.usefixtures("unused_gpus")
def test_a_healthy_gpu_passes_everything_and_its_recording_is_judged_alike(tmp_path: Path) -> None:
    recording, log, again = tmp_path / "gpu.json", tmp_path / "log", tmp_path / "again"
    count = f"--gpus={len(GPUS)}"
    code = main(
        [
            count,
            "--dear=always",
            f"--local={tmp_path}",
            f"--record={recording}",
            f"--termination-log={log}",
        ],
        {},
    )
    first = from_json(json.loads(log.read_text()))
    failed = [finding for finding in first.findings if finding.status == "fail"]
    assert (code, failed) == (0, [])
    assert load(recording).synthetic is False
    main([count, "--dear=always", f"--replay={recording}", f"--termination-log={again}"], {})
    assert from_json(json.loads(again.read_text())).verdict == first.verdict
