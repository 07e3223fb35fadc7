"""The first process of a stage's container, in this process: what it exits with, and what it says last."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import claim, container, local, outcome
from tasks.cluster.diagnose import verdict
from tasks.cluster.seen import Seen
from tasks.container import LAST_WORDS_BYTES, last_words
from tasks.outcome import Outcome
from tasks.run_dir import RunDir
from tests.unit.cluster.recordings import seen
from tests.unit.cluster.runs import STAGE, run_folder, said

TEXT = st.text(max_size=400).map(lambda text: text * 30)


@given(TEXT, TEXT)
def test_last_words_fit_and_are_whole_whatever_the_message_is(message: str, hint: str) -> None:
    text = last_words(replace(said("user", 64, message), hint=hint))
    assert len(text.encode()) <= LAST_WORDS_BYTES <= 4096
    found = Outcome(**json.loads(text))
    assert (found.kind, found.exit_code) == ("user", 64)
    assert message.startswith(found.message)
    assert hint.startswith(found.hint)


def test_short_last_words_are_not_cut() -> None:
    ended = said("data", 65, "é" * 300 + "\udcff")
    assert Outcome(**json.loads(last_words(ended))) == ended


def test_whoever_watches_reads_the_last_words_of_a_long_error_in_any_script() -> None:
    full = seen("stage-64")
    message = "Слишком много " * 300
    ended = full.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    ended["message"] = last_words(said("user", 64, message))
    found = verdict(Seen(full.job, full.pods, None, full.at), 1.0)
    assert found.kind == "user"
    assert message.startswith(found.message)
    assert len(found.message) > 400


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    """A run that this process works on as a container's first would, and its signals afterwards."""
    run = run_folder(tmp_path)
    monkeypatch.setattr(container, "LAST_WORDS", tmp_path / "termination-log")
    container.LAST_WORDS.touch()
    monkeypatch.setattr(container, "GANG_WAIT_S", 5.0)
    monkeypatch.setattr(container, "POLL_S", 0.005)
    monkeypatch.setattr(local, "RELAY_INTERVAL_S", 0.005)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["container", STAGE, str(run.path)])
    monkeypatch.setenv("HEADRACE_POD", "a")
    monkeypatch.setenv("HEADRACE_NODE", "dev-1")
    for name in ("HEADRACE_GANG", "JOB_COMPLETION_INDEX", "HEADRACE_NUM_RANKS"):
        monkeypatch.delenv(name, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def works(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A short program stands in for tasks.pod; it finds the run's folder for this pod in `place`."""

    def command(run: RunDir) -> list[str]:
        begin = (f"place = {str(run.path)!r}", *lines)
        return [sys.executable, "-S", "-c", "\n".join(begin)]

    monkeypatch.setattr(container, "_command", command)


def writes(ended: Outcome) -> str:
    return f"open(place + '/outcome.json', 'w').write({json.dumps(ended.__dict__)!r})"


def last() -> Outcome:
    return Outcome(**json.loads(container.LAST_WORDS.read_text()))


def test_a_stage_that_is_well_ends_with_0_and_says_on_which_node(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(monkeypatch, writes(said("ok", 0)))
    assert container.main() == 0
    found = outcome.read(run.path / "pods" / "a")
    assert found is not None
    assert (found.kind, found.attempt, found.node) == ("ok", 1, "dev-1")
    assert last() == found


def test_a_stage_that_fails_ends_with_its_code_and_says_why(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    works(monkeypatch, writes(said("data", 65, "the shard is empty")), "raise SystemExit(65)")
    assert container.main() == 65
    assert (last().kind, last().message) == ("data", "the shard is empty")
    assert capfd.readouterr().err == "pretrain: data error: the shard is empty\n"


def test_without_a_request_the_volume_is_not_the_launchers(run: RunDir) -> None:
    run.request.unlink()
    assert container.main() == 75
    assert "is the shared volume mounted at the same path" in last().hint


def test_a_pod_of_a_past_attempt_that_begins_late_touches_nothing(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = json.loads(run.request.read_text()) | {"attempt": 2}
    run.request.write_text(json.dumps(request))
    monkeypatch.setenv("HEADRACE_ATTEMPT", "1")
    assert container.main() == 75
    assert last().message == "a pod of attempt 1, and attempt 2 has the work"
    assert not (run.path / "pods").exists()


def test_code_that_is_not_the_projects_is_the_users_affair(run: RunDir) -> None:
    request = json.loads(run.request.read_text()) | {"code": {"components/errors.py": "other"}}
    run.request.write_text(json.dumps(request))
    assert container.main() == 64
    assert last().message == (
        "components/errors.py in the image is not the one of the project (1 files differ)"
    )
    assert not (run.path / "pods").exists()


def test_a_pod_whose_work_was_taken_away_says_nothing_of_the_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(monkeypatch, writes(said("ok", 0)))
    real = container.supervise

    def then_superseded(*arguments: object, **options: object) -> Outcome:
        ended = real(*arguments, **options)  # type: ignore[arg-type]
        claim.claim(run.path, "b")
        return ended

    monkeypatch.setattr(container, "supervise", then_superseded)
    assert container.main() == 75
    assert last().message == "a was superseded by b"
    assert outcome.read(run.path / "pods" / "b") is None


def test_sigterm_while_a_gangs_pod_waits_for_the_others_ends_it_at_once(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_GANG", "1")
    threading.Timer(0.05, signal.raise_signal, (signal.SIGTERM,)).start()
    assert container.main() == 75
    assert last().message == "stopped by SIGTERM before it began"


def test_a_gang_whose_other_pods_do_not_come_gives_up(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_GANG", "1")
    monkeypatch.setattr(container, "GANG_WAIT_S", 0.01)
    assert container.main() == 75
    assert "the other pods did not come" in last().message


def test_sigterm_when_the_work_is_done_takes_nothing_of_it_back(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(monkeypatch, writes(said("ok", 0)))
    real = container.holder

    def terminated(run_dir: Path) -> str:
        signal.raise_signal(signal.SIGTERM)
        return real(run_dir)

    monkeypatch.setattr(container, "holder", terminated)
    assert container.main() == 0
    assert last().kind == "ok"


def test_sigterm_when_a_helpers_pieces_are_done_takes_nothing_of_them_back(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setenv("HEADRACE_NUM_NODES", "2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    commands: list[list[str]] = []
    real, says_last = container.supervise, container._say_last_words

    def supervised(run: RunDir, command: list[str], *rest: object, **options: object) -> Outcome:
        commands.append(command)
        return real(run, [sys.executable, "-S", "-c", ""], *rest, **options)  # type: ignore[arg-type]

    def terminated(ended: Outcome) -> None:
        signal.raise_signal(signal.SIGTERM)
        says_last(ended)

    monkeypatch.setattr(container, "supervise", supervised)
    monkeypatch.setattr(container, "_say_last_words", terminated)
    assert container.main() == 0
    assert last().kind == "ok"
    assert [command[-2:] for command in commands] == [["--share", "1/2"]]
    assert not (run.path / "pods").exists()


def test_a_second_sigterm_does_not_break_what_is_said_of_the_first(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_GANG", "1")
    real = container._say_last_words

    def terminated(ended: Outcome) -> None:
        signal.raise_signal(signal.SIGTERM)
        real(ended)

    monkeypatch.setattr(container, "_say_last_words", terminated)
    threading.Timer(0.05, signal.raise_signal, (signal.SIGTERM,)).start()
    assert container.main() == 75
    assert last().kind == "infra"
