"""How `headrace` ends where nobody has said that it failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import cli


def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_reproduce", interrupted)
    monkeypatch.setattr(sys, "argv", ["headrace", "reproduce", "models:/headrace/1"])
    assert cli.main() == 130
    assert capsys.readouterr().err == (
        "interrupted; the same command goes on from what was finished\n"
    )


def test_a_reader_that_has_read_enough_gets_no_trace(tmp_path: Path) -> None:
    program = (
        "import sys; from tasks import cli; sys.argv = ['headrace', 'models']\n"
        "cli._models = lambda *_: print('x' * 9) or 0\n"
        "sys.stdin.read(); sys.exit(cli.main())"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program], input="", stdout=writing, stderr=subprocess.PIPE,
        text=True, check=False, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    "words", [["--max-new-tokens", "0"], ["--temperature", "-1"], ["--temperature", "nan"]]
)
def test_a_number_that_no_model_can_take_is_not_called_the_versions_fault(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["generate", "models:/headrace/1", "?", *words])
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(f"headrace generate: error: argument {words[0]}: {words[1]} is ")
    )
