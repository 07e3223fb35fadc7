import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.gates.promotion import (
    Bound,
    Comparison,
    Gates,
    Measured,
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


def values(loss: Sequence[float], ids: str = "ab") -> dict[str, Any]:
    return {"ids": [*ids], "sizes": [1.0] * len(loss), "dpo": [*loss]}


def measured(loss: Sequence[float], ids: str = "ab") -> Measured:
    return Measured(figures(sum(loss) / len(loss)), {"loss": values(loss, ids)})


@pytest.mark.parametrize(
    ("better", "min_gain_se", "passed"),
    # The differences 0.01, 0.02, 0.03 and 0.06 have the mean 0.03 and the error 0.01080: 2.78.
    [("higher", 2.7, True), ("higher", 2.8, False), ("lower", -2.8, True), ("lower", -2.7, False)],
)
def test_the_gain_over_the_champion_is_in_errors_of_the_difference_item_by_item(
    better: str, min_gain_se: float, passed: bool
) -> None:
    old, moves = (0.1, 2.9, 0.5, 1.7), (0.01, 0.02, 0.03, 0.06)
    new = [value + move for value, move in zip(old, moves, strict=True)]
    rules = gates(better, min_gain_se)
    rows = judge_figures(rules, measured(new, "abcd"), measured(old, "abcd"))
    (row,) = [row for row in rows if row.champion]
    assert row.passed is passed
    error = statistics.stdev(moves) / 2
    sign = 1 if better == "higher" else -1
    gain = f"{0.03 * sign:+.4f} ± {error:.4f}, {0.03 * sign / error:+.1f} se"
    assert row.asked == f"gain >= {min_gain_se:g} se, has {gain}"


def test_items_of_several_sizes_weigh_as_much_as_their_size() -> None:
    sizes = {"sizes": [10.0, 30.0]}
    old = Measured(figures(1.0), {"loss": values([10.0, 30.0]) | sizes})
    new = Measured(figures(0.9), {"loss": values([9.0, 27.0]) | sizes})
    (row,) = [row for row in judge_figures(gates(), new, old) if row.champion]
    assert row.asked == "gain >= -2 se, has +0.1000 ± 0.0000, +inf se"


def test_without_a_champion_only_the_bounds_hold() -> None:
    assert [row.asked for row in judge_figures(gates(), measured([1.0]), None)] == [
        ">= 0.5 and <= 2"
    ]


@pytest.mark.parametrize(
    ("loss", "passed"), [(0.5, True), (0.49, False), (2.0, True), (2.1, False)]
)
def test_a_bound_holds_at_its_edge(loss: float, passed: bool) -> None:
    (row,) = judge_figures(gates(), measured([loss]), None)
    assert row.passed is passed


def test_what_was_not_measured_fails() -> None:
    rows = judge_figures(gates(), Measured({}, {}), measured([1.0, 1.0]))
    assert [(row.candidate, row.passed) for row in rows] == [("not measured", False)] * 2


@pytest.mark.parametrize(
    ("champion", "said"),
    [
        ({}, "unknown, item by item"),
        ({"loss": values([1.9, 1.9], ids="xz")}, "other test items"),
        ({"loss": values([1.9, 1.9]) | {"sizes": [1.0, 2.0]}}, "other test items"),
    ],
)
def test_a_champion_that_was_not_measured_on_the_same_items_compares_with_nothing(
    champion: dict[str, Any], said: str
) -> None:
    rows = judge_figures(gates(), measured([0.6, 0.6]), Measured(figures(1.9), champion))
    assert [row.asked for row in rows if row.champion] == [f"gain >= -2 se; {said}"]
    assert [row.passed for row in rows] == [True, False]


def test_equal_values_are_no_loss() -> None:
    same = measured([1.0, 1.5])
    assert all(row.passed for row in judge_figures(gates(min_gain_se=0.0), same, same))


def test_a_contract_that_is_not_known_is_not_taken_for_kept() -> None:
    assert judge_contracts(gates(), {"a": 0, "b": 0}).passed
    assert not judge_contracts(gates(), {"a": 0, "b": None}).passed
    assert judge_contracts(gates(), {"a": 1, "b": 1}).candidate == "2 failed"


def test_an_empty_answer_fails() -> None:
    assert judge_answers(["a", "b"], ["x", "y"]).passed
    assert judge_answers(["a", "b"], ["x", " "]).candidate == "1 of 2"


def test_the_table_names_what_failed() -> None:
    text = table(judge_figures(gates(), measured([3.0]), None))
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
