"""The program: exit codes, what it prints and leaves, from recordings and from this machine."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from components.preflight.__main__ import main
from components.preflight.recorded import load, save
from components.preflight.report import from_json
from components.preflight.table import table
from tests.unit.preflight.recordings.made import HEALTHY, sick, sick_gpu

RECORDING = Path(__file__).parent / "recordings" / "healthy-h100.json"


def replay(path: Path, *arguments: str) -> int:
    return main(["--replay", str(path), "--gpus=2", "--dear=always", *arguments], {})


def test_a_healthy_recording_exits_0_and_leaves_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    assert replay(RECORDING, f"--termination-log={log}", "--commit=abc") == 0
    report = from_json(json.loads(log.read_text()))
    assert (report.verdict, report.node, report.commit) == ("ok", "made-up", "abc")
    assert len(log.read_bytes()) <= 4096
    assert (
        "pre-check of made-up as h100-sxm, 2026-11-25 09:46:40 UTC: OK" in capsys.readouterr().out
    )


def test_a_real_gpu_is_judged_as_it_was_on_its_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the links and the clock that a virtual machine is not shown, which only warn."""
    recording = RECORDING.with_name("virtual-h200.json")
    assert load(recording).synthetic is False
    assert main(["--replay", str(recording), "--gpus=1", "--dear=always"], {}) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("pre-check of h200 as h200, 2026-11-26 11:00:11 UTC: WARN")
    found = [row.split()[:2] for row in rows]
    assert [check for status, check in found if status == "WARN"] == ["nvlink", "clock"]
    assert {status for status, _ in found} == {"WARN", "SKIPPED", "OK"}


def test_a_sick_recording_exits_69_and_its_table_begins_with_the_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log = tmp_path / "sick.json", tmp_path / "log"
    save(sick_gpu(ecc_uncorrected=3), path)
    assert replay(path, f"--termination-log={log}") == 69
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(" after ")[0].endswith("UTC: FAIL")
    assert " ".join(lines[1].split()) == (
        "FATAL ecc GPU 1 (0000:5d:00): 3 uncorrectable memory errors since its last reset, allowed 0"
    )
    report = from_json(json.loads(log.read_text()))
    assert (report.verdict, report.fatal) == ("fail", True)


def test_a_full_shared_volume_exits_75(tmp_path: Path) -> None:
    tmp, data = HEALTHY.readings.disks
    path = tmp_path / "full.json"
    save(sick(disks=(tmp, replace(data, free_gib=0.1))), path)
    assert replay(path) == 75


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpus", "many"], "invalid int value"),
        (["--replay", "/none"], "/none: No such file or directory"),
        (["--skus", "/none"], "/none: missing"),
        (["--gang"], "PET_MASTER_ADDR is not set"),
    ],
)
def test_a_wrong_command_line_is_the_users_error_in_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dear=never", *arguments], {}) == 64
    complaint = capsys.readouterr().err
    assert complaint.startswith("user error: ")
    assert told in complaint
    assert len(complaint.splitlines()) == 1


def test_a_termination_log_that_cannot_be_written_changes_no_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert replay(RECORDING, "--termination-log=/none/log") == 0
    assert "/none/log: the report could not be left there" in capsys.readouterr().err


def test_a_wrong_recording_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(RECORDING.read_text().replace('"synthetic": true', '"synthetic": "yes"'))
    assert replay(path) == 64


def test_without_an_agent_dear_checks_are_made_and_the_report_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--replay", str(RECORDING)], {}) == 0
    out = capsys.readouterr().out
    assert "HEADRACE_NODE_IP is not set" in out
    assert "matmul" in out
    assert main(["--replay", str(RECORDING), "--dear=never"], {}) == 0
    assert "matmul" not in capsys.readouterr().out


def test_the_table_joins_what_passed_and_lists_each_fault() -> None:
    from components.preflight import inspect
    from tests.unit.preflight.recordings.made import THRESHOLDS

    text = table(inspect(sick_gpu(remap_pending=True), THRESHOLDS))
    assert text.count("row_remap") == 2
    assert (
        "OK           temperature      GPU 0 (0000:3b:00): 41 °C, slows down at 87 °C (+ 1 more)"
        in text
    )


def test_this_machine_is_read_recorded_and_judged_alike_from_its_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log, again = tmp_path / "this.json", tmp_path / "log", tmp_path / "again"
    arguments = ["--dear=never", f"--local={tmp_path}", "--node=here"]
    code = main([*arguments, f"--record={path}", f"--termination-log={log}"], {})
    recording = load(path)
    assert (recording.synthetic, recording.readings.node) == (False, "here")
    assert main(["--dear=never", f"--replay={path}", f"--termination-log={again}"], {}) == code
    first, second = (from_json(json.loads(file.read_text())) for file in (log, again))
    assert first.findings == second.findings
    assert capsys.readouterr().err == ""


def test_the_cheap_checks_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from components.preflight.__main__ import main;"
        f"main(['--dear=never', '--replay={RECORDING}'], {{}});"
        "print(sorted({'torch', 'numpy', 'requests', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "[]"
