"""`k8s/nodes.yaml`: every number by which nodes are judged. There are no defaults here."""

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from components.errors import UserError
from components.section import Section, explain, read_yaml

PATH = Path("k8s", "nodes.yaml")

Seconds = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class States(Section):
    soft_fails_to_quarantine: Count
    soft_window_s: Seconds
    soft_repeat_s: Seconds
    drain_after_s: Annotated[int, Field(ge=0)]
    probation_s: Seconds
    max_repairs: Count
    repair_window_s: Seconds


class Breaker(Section):
    max_fraction: Fraction
    at_least: Count
    window_s: Seconds


class Agent(Section):
    interval_s: Positive
    heartbeat_s: Positive
    silent_after_s: Seconds
    sample_every_s: Seconds
    max_samples: Annotated[int, Field(ge=2, le=1000)]


class Controller(Section):
    resync_s: Seconds
    relist_s: Seconds


class CorrectedErrors(Section):
    weight: Weight
    full_at_per_day: Positive


class RowRemaps(Section):
    weight: Weight
    full_at: Positive


class Temperature(Section):
    weight: Weight
    ahead_s: Seconds
    margin_c: Positive


class Throttling(Section):
    weight: Weight
    full_at_fraction: Fraction


class PastQuarantines(Section):
    weight: Weight
    half_life_s: Seconds


class RiskWeights(Section):
    at_risk_from: Fraction
    at_risk_until: Fraction
    min_samples: Annotated[int, Field(ge=2)]
    min_span_s: Seconds
    corrected_errors: CorrectedErrors
    row_remaps: RowRemaps
    temperature: Temperature
    throttling: Throttling
    past_quarantines: PastQuarantines


class Policy(Section):
    states: States
    breaker: Breaker
    agent: Agent
    controller: Controller
    risk: RiskWeights

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.risk.at_risk_until >= self.risk.at_risk_from:
            raise ValueError(
                f"risk.at_risk_until: {self.risk.at_risk_until} is not below risk.at_risk_from, "
                f"{self.risk.at_risk_from}; without a gap a node at the threshold would flap"
            )
        if self.agent.silent_after_s <= self.agent.heartbeat_s:
            raise ValueError(
                f"agent.silent_after_s: {self.agent.silent_after_s} is not above "
                f"agent.heartbeat_s, {self.agent.heartbeat_s}; every agent would count as silent"
            )
        return self


def load_policy(path: Path) -> Policy:
    """Raises UserError with one line for each fault."""
    try:
        return Policy.model_validate_json(json.dumps(read_yaml(path)))
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in explain(error))) from error
