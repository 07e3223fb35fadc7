"""The witness of the kills sees what it is there to see."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import kill
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for

BEFORE = kill.undisturbed({stage: stage[0] for stage in toy.STAGES})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """All that the witness reads of a toy project; the params ask for another `left` and `join`."""
    lines = ["stages:"]
    for stage, text in BEFORE.items():
        (tmp_path / "artifacts" / stage).mkdir(parents=True)
        (tmp_path / "artifacts" / stage / "text").write_text(text)
        lines += [f"  {stage}:", "    outs:", f"    - path: artifacts/{stage}"]
        lines += [f"      md5: {kill.dvc_digest(text)}"]
    (tmp_path / "dvc.lock").write_text("\n".join(lines) + "\n")
    texts = {stage: stage[0] for stage in toy.STAGES} | {"left": "l7"}
    (tmp_path / "params.yaml").write_text(
        "".join(f"{stage}: {{text: {text}}}\n" for stage, text in texts.items())
    )
    return tmp_path


def replace_lock(project: Path, old: str, new: str) -> None:
    text = (project / "dvc.lock").read_text()
    assert old in text
    (project / "whole").write_text(text.replace(old, new))
    (project / "whole").rename(project / "dvc.lock")


@pytest.mark.parametrize(
    ("happen", "fault"),
    [
        (lambda p: (p / "artifacts" / "left" / "text").write_text(""), "left was '', which is none"),
        (lambda p: (p / "artifacts" / "join" / "text").write_text("sl7s"), "join was 'sl7s'"),
        (lambda p: (p / "artifacts" / "left" / "more").touch(), "left held ["),
        (lambda p: (p / "dvc.lock").unlink(), "the watcher ended: FileNotFoundError"),
        (lambda p: (p / "dvc.lock").write_text(""), "dvc.lock said None of source"),
        (lambda p: replace_lock(p, "  join:", "  - join:"), "the watcher ended: UserError"),
        (lambda p: replace_lock(p, kill.dvc_digest("sr"), "a" * 32), "dvc.lock said aaaa"),
    ],
)  # fmt: skip
def test_half_of_something_is_a_fault(
    project: Path, happen: Callable[[Path], object], fault: str
) -> None:
    with kill.Watcher(project) as watcher:
        happen(project)
        wait_for(lambda: watcher.faults)
    assert watcher.faults[0].startswith(fault)


def test_what_was_and_what_is_asked_for_are_both_whole_and_a_stage_that_runs_has_no_output(
    project: Path,
) -> None:
    wanted = kill.undisturbed(kill.params_texts(project))
    with kill.Watcher(project) as watcher:
        (project / "artifacts" / "right").rename(project / "gone")
        (project / "artifacts" / "join" / "text").unlink()
        replace_lock(project, kill.dvc_digest(BEFORE["left"]), kill.dvc_digest(wanted["left"]))
        (project / "artifacts" / "left" / ".text").write_text(wanted["left"])
        (project / "artifacts" / "left" / ".text").rename(project / "artifacts" / "left" / "text")
        num_looks = watcher.num_looks
        wait_for(lambda: watcher.num_looks >= num_looks + 2)
    assert watcher.faults == []
