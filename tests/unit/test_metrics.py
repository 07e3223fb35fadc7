import json
from pathlib import Path

from components.metrics import JsonLinesSink


def points(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and figures of the lines that are whole."""
    found = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "metrics" in entry:
            found.append((entry["step"], entry["metrics"]))
    return found


def log(path: Path, *steps: int) -> None:
    sink = JsonLinesSink(path, "toy")
    for step in steps:
        sink.metrics({"loss": step / 4}, step)
    sink.close()


def test_the_line_after_half_a_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log(path, 0, 1)
    path.write_bytes(path.read_bytes()[:-9])
    log(path, 1, 2)
    assert points(path) == [(0, {"loss": 0.0}), (1, {"loss": 0.25}), (2, {"loss": 0.5})]


def test_steps_that_were_logged_and_are_computed_again_are_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log(path, 0, 1, 2, 3)
    log(path, 2, 3, 4)
    assert [step for step, _ in points(path)] == [0, 1, 2, 3, 4]


def test_a_metric_that_is_new_at_a_logged_step_is_kept_and_the_old_one_beside_it_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    log(path, 0, 1)
    sink = JsonLinesSink(path, "toy")
    sink.metrics({"loss": 9.0, "accuracy": 0.5}, 1)
    sink.close()
    assert points(path)[-1] == (1, {"accuracy": 0.5})


def test_one_process_may_log_its_steps_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log(path, 3, 1, 2)
    assert [step for step, _ in points(path)] == [3, 1, 2]


def test_a_figure_that_is_no_number_is_written_as_its_name(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonLinesSink(path, "toy")
    sink.metrics({"loss": float("nan"), "ratio": float("inf")}, 0)
    sink.close()
    assert points(path) == [(0, {"loss": "nan", "ratio": "inf"})]
