import math
from pathlib import Path

import pytest

from components.errors import UserError
from components.gates.promotion import (
    Bound,
    Comparison,
    Gates,
    judge_answers,
    judge_contracts,
    judge_figures,
    load_gates,
    table,
)


def gates(better: str = "lower", min_gain_se: float = -2.0) -> Gates:
    rule = Comparison.model_validate({"better": better, "min_gain_se": min_gain_se})
    return Gates(
        against_champion={"loss.dpo": rule}, bounds={"loss.dpo": Bound(min=0.5, max=2.0)},
        max_failed_expectations=0, prompts=["?"],
    )  # fmt: skip


def figures(loss: float, error: float = 0.3) -> dict[str, float]:
    return {"loss.dpo": loss, "loss_se.dpo": error}


@pytest.mark.parametrize(
    ("better", "new", "passed"),
    # sqrt(0.3^2 + 0.4^2) = 0.5, so two errors are 1.0
    [
        ("lower", 1.99, True),
        ("lower", 2.01, False),
        ("higher", 0.01, True),
        ("higher", -0.01, False),
    ],
)
def test_the_gain_over_the_champion_is_in_errors_of_their_difference(
    better: str, new: float, passed: bool
) -> None:
    rows = judge_figures(gates(better), figures(new, 0.3), figures(1.0, 0.4))
    (row,) = [row for row in rows if row.champion]
    assert row.passed is passed
    gain = (1.0 - new if better == "lower" else new - 1.0) / math.hypot(0.3, 0.4)
    assert row.asked == f"gain >= -2 se, has {gain:+.1f}"


def test_without_a_champion_only_the_bounds_hold() -> None:
    assert [row.asked for row in judge_figures(gates(), figures(1.0), None)] == [">= 0.5 and <= 2"]


@pytest.mark.parametrize(
    ("loss", "passed"), [(0.5, True), (0.49, False), (2.0, True), (2.1, False)]
)
def test_a_bound_holds_at_its_edge(loss: float, passed: bool) -> None:
    (row,) = judge_figures(gates(), figures(loss), None)
    assert row.passed is passed


def test_what_was_not_measured_fails() -> None:
    rows = judge_figures(gates(), {}, figures(1.0))
    assert [(row.candidate, row.passed) for row in rows] == [("not measured", False)] * 2


def test_equal_figures_without_an_error_are_no_loss() -> None:
    exact = {"loss.dpo": 1.0, "loss_se.dpo": 0.0}
    assert all(row.passed for row in judge_figures(gates(min_gain_se=0.0), exact, exact))


def test_a_contract_that_is_not_known_is_not_taken_for_kept() -> None:
    assert judge_contracts(gates(), {"a": 0, "b": 0}).passed
    assert not judge_contracts(gates(), {"a": 0, "b": None}).passed
    assert judge_contracts(gates(), {"a": 1, "b": 1}).candidate == "2 failed"


def test_an_empty_answer_fails() -> None:
    assert judge_answers(["a", "b"], ["x", "y"]).passed
    assert judge_answers(["a", "b"], ["x", " "]).candidate == "1 of 2"


def test_the_table_names_what_failed() -> None:
    text = table(judge_figures(gates(), figures(3.0), None))
    assert text.splitlines()[-1] == (
        "| loss.dpo | 3.0000 ± 0.3000 |  | >= 0.5 and <= 2 | **failed** |"
    )


def test_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("against_champion: {}\nbounds: {}\nmax_failed_expectations: 0\nprompt: []\n")
    with pytest.raises(UserError) as caught:
        load_gates(path)
    assert caught.value.message.splitlines() == [
        "gates.yaml: prompts: missing; every key is written out, there are no defaults",
        "gates.yaml: prompt: unknown key; remove it or mend its spelling",
    ]


def test_a_version_that_is_asked_nothing_has_not_answered(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("against_champion: {}\nbounds: {}\nmax_failed_expectations: 0\nprompts: []\n")
    with pytest.raises(UserError, match=r"gates.yaml: prompts: List should have at least 1 item"):
        load_gates(path)
