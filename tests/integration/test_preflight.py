"""The pre-check on this machine for real: all that is dear, and a gang of two over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.preflight.report import Finding, Report, from_json
from components.preflight.stamp import dear_until
from components.preflight.thresholds import SKUS
from tests import floors
from tests.integration.tasks.consoles import free_ports


@pytest.fixture(scope="module")
def measured_only(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option for thresholds that no speed is below: here other tests take what they need."""
    return f"--skus={floors.write_without(tmp_path_factory.mktemp('thresholds') / 'skus.yaml')}"


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "components.preflight",
            "--gpus=0",
            f"--local={folder}",
            f"--termination-log={folder}/log",
            *arguments,
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(child: subprocess.Popen[str], folder: Path) -> tuple[int, Report]:
    out, err = child.communicate(timeout=240)
    assert err == "", out
    return child.returncode, from_json(json.loads((folder / "log").read_text()))


def of(report: Report, check: str) -> Finding:
    (finding,) = [found for found in report.findings if found.check == check]
    return finding


def test_this_machine_passes_all_that_is_dear_and_may_be_stamped(
    tmp_path: Path, measured_only: str
) -> None:
    code, report = end(start(tmp_path, "--dear=always", measured_only), tmp_path)
    assert code == 0
    measured = {finding.check: finding.status for finding in report.findings}
    assert {measured[check] for check in ("disk_speed", "memory_bandwidth", "matmul")} == {"ok"}
    assert dear_until(report, 24, 0) == report.at + 24 * 3600
    assert list(tmp_path.iterdir()) == [tmp_path / "log"]


def member(rank: int, port: int) -> dict[str, str]:
    return {
        "PET_NNODES": "2",
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }


def test_two_nodes_sum_exactly_and_tell_how_fast(tmp_path: Path, measured_only: str) -> None:
    (port,) = free_ports(1)
    folders = [tmp_path / "first", tmp_path / "second"]
    started = []
    for rank, folder in enumerate(folders):
        folder.mkdir()
        arguments = ("--dear=never", "--gang", measured_only)
        started.append(start(folder, *arguments, **member(rank, port)))
    for child, folder in zip(started, folders, strict=True):
        code, report = end(child, folder)
        assert code == 0, report
        finding = of(report, "all_reduce")
        assert finding.status == "ok"
        assert finding.message.startswith("2 ranks on 2 nodes: bus bandwidth ")
        assert isinstance(finding.value, float)
        assert finding.value > 0
        assert isinstance(of(report, "clock_skew").value, float)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_whose_peer_never_comes_cannot_be_told_from_a_healthy_one(
    tmp_path: Path, rank: int
) -> None:
    skus = tmp_path / "skus.yaml"
    skus.write_text(SKUS.read_text().replace("timeout_s: 300", "timeout_s: 3"))
    arguments = ("--dear=never", "--gang", f"--skus={skus}")
    code, report = end(start(tmp_path, *arguments, **member(rank, *free_ports(1))), tmp_path)
    assert code == 75
    assert report.verdict == "inconclusive"
    finding = of(report, "all_reduce")
    assert (finding.status, finding.fatal) == ("inconclusive", False)
    assert "not all of 2 ranks met" in finding.message
