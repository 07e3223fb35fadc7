"""The `reward_model` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from components.section import Section
from components.train.params import AdamWParams, CheckpointParams, GuardParams, ScheduleParams


class RewardModelParams(Section):
    """DPRM: the crowd's distribution as target, and how it is learned and measured."""

    loss: Literal["ce", "w", "ot"]
    distance_power: Literal[1, 2] = Field(
        description="of the differences of cumulative distributions that w and ot sum"
    )
    tie_breaker: float = Field(
        ge=0, le=4, description="cost of harmful for harmless in ot, in units of reward"
    )
    compare_losses: bool = Field(description="train the other losses too, for the report")
    prior_strength: float = Field(gt=0, description="the prior counts as so many votes")
    smoothing: float = Field(ge=0, lt=0.5, description="share of a vote for the next likely label")
    row_length: int = Field(ge=32, description="tokens of a packed row, and of the longest answer")
    prompts_per_batch: int = Field(ge=1, description="each with all its answers")
    prompts_per_micro_batch: int = Field(ge=1)
    num_steps: int = Field(ge=1)
    optimiser: AdamWParams
    schedule: ScheduleParams
    max_grad_norm: float = Field(gt=0)
    guard: GuardParams
    checkpoints: CheckpointParams
    num_held_out_prompts: int = Field(ge=2, description="of the validation split, at most")
    num_bins: int = Field(ge=2, le=100, description="of the calibration error")
    num_resamples: int = Field(ge=100, description="of the bootstrap behind each standard error")

    @model_validator(mode="after")
    def _fits(self) -> "RewardModelParams":
        if self.prompts_per_batch % self.prompts_per_micro_batch:
            raise ValueError(
                f"prompts_per_batch is {self.prompts_per_batch}; it must be a multiple of "
                f"prompts_per_micro_batch = {self.prompts_per_micro_batch}"
            )
        if self.schedule.warmup_steps >= self.num_steps:
            raise ValueError(
                f"reward_model.schedule.warmup_steps is {self.schedule.warmup_steps}; it must be "
                f"below reward_model.num_steps {self.num_steps}"
            )
        return self
