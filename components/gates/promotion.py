"""The gates before promotion: figures of a candidate against bounds and against the champion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from components.errors import UserError
from components.measure.ratio import ratio_with_error
from components.section import Section, explain, read_yaml

Figures = Mapping[str, float]
"""Metric names with dots, such as `bits_per_byte.dpo`; its error is `bits_per_byte_se.dpo`."""
Items = Mapping[str, Mapping[str, Any]]
"""What evaluate got for each test item: by the first part of a metric's name `ids`, `sizes`, and the
values by the second part."""


class Comparison(Section):
    better: Literal["lower", "higher"]
    min_gain_se: float = Field(description="gain over the champion, in standard errors of it")


class Bound(Section):
    min: float | None
    max: float | None


class Gates(Section):
    against_champion: dict[str, Comparison]
    bounds: dict[str, Bound]
    max_failed_expectations: int = Field(ge=0)
    prompts: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class Measured:
    """A version's figures, and what they are of, item by item."""

    figures: Figures
    items: Items


@dataclass(frozen=True)
class Verdict:
    """One row of the table."""

    gate: str
    candidate: str
    champion: str
    asked: str
    passed: bool


def load_gates(path: Path) -> Gates:
    """Raises UserError with one line for every wrong key or value."""
    try:
        return Gates.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError("\n".join(f"{path.name}: {line}" for line in explain(error))) from error


def judge_figures(gates: Gates, candidate: Measured, champion: Measured | None) -> list[Verdict]:
    """A row for each metric. One that was not measured fails; without a champion none is compared."""
    rows = [_bounded(name, bound, candidate.figures) for name, bound in gates.bounds.items()]
    if champion is not None:
        rows += [
            _compared(name, rule, candidate, champion)
            for name, rule in gates.against_champion.items()
        ]
    return rows


def judge_contracts(gates: Gates, num_failed: Mapping[str, int | None]) -> Verdict:
    """`num_failed`: failed expectations of each stage's contract; None if it is not known."""
    unknown = [stage for stage, num in num_failed.items() if num is None]
    total = sum(num or 0 for num in num_failed.values())
    said = f"{total} failed" + (f"; unknown: {', '.join(unknown)}" if unknown else "")
    passed = total <= gates.max_failed_expectations and not unknown
    return Verdict("data contracts", said, "", f"<= {gates.max_failed_expectations} failed", passed)


def judge_answers(prompts: Sequence[str], answers: Sequence[str]) -> Verdict:
    num_answered = sum(bool(answer.strip()) for answer in answers)
    return Verdict(
        "answers from the registry",
        f"{num_answered} of {len(prompts)}",
        "",
        "every prompt",
        num_answered == len(prompts),
    )


def table(rows: Sequence[Verdict]) -> str:
    """As Markdown."""
    lines = ["| gate | candidate | champion | asked | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "passed" if row.passed else "**failed**"
        lines.append(f"| {row.gate} | {row.candidate} | {row.champion} | {row.asked} | {verdict} |")
    return "\n".join(lines)


def _bounded(name: str, bound: Bound, candidate: Figures) -> Verdict:
    asked = " and ".join(
        f"{sign} {limit:g}"
        for sign, limit in ((">=", bound.min), ("<=", bound.max))
        if limit is not None
    )
    value = candidate.get(name)
    passed = (
        value is not None
        and (bound.min is None or value >= bound.min)
        and (bound.max is None or value <= bound.max)
    )
    return Verdict(name, _shown(name, candidate), "", asked, passed)


def _compared(name: str, rule: Comparison, candidate: Measured, champion: Measured) -> Verdict:
    """In pairs: most of a figure's own error is which items were drawn, and the same ones were."""
    asked = f"gain >= {rule.min_gain_se:g} se"
    shown = _shown(name, candidate.figures), _shown(name, champion.figures)
    figure, _, model = name.partition(".")
    new, old = candidate.items.get(figure, {}), champion.items.get(figure, {})
    is_known = name in candidate.figures and name in champion.figures
    if not is_known or model not in new or model not in old:
        return Verdict(name, *shown, f"{asked}; unknown, item by item", False)
    if (new["ids"], new["sizes"]) != (old["ids"], old["sizes"]):
        return Verdict(name, *shown, f"{asked}; other test items", False)
    difference = np.asarray(new[model], dtype=float) - np.asarray(old[model], dtype=float)
    gain, error = ratio_with_error(
        difference if rule.better == "higher" else -difference, new["sizes"]
    )
    gain_se = gain / error if error else math.copysign(math.inf, gain) if gain else 0.0
    has = f"has {gain:+.4f} ± {error:.4f}, {gain_se:+.1f} se"
    return Verdict(name, *shown, f"{asked}, {has}", gain_se >= rule.min_gain_se)


def _error_of(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"{first}_se{dot}{rest}"


def _shown(name: str, figures: Figures) -> str:
    value, error = figures.get(name), figures.get(_error_of(name))
    if value is None:
        return "not measured"
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"
