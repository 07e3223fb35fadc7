"""The `sft` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from components.section import Section
from components.train.params import (
    AdamWParams,
    BatchParams,
    CheckpointParams,
    GuardParams,
    ScheduleParams,
)


class SftParams(Section):
    batch: BatchParams
    num_steps: int = Field(ge=1)
    optimiser: AdamWParams
    schedule: ScheduleParams
    max_grad_norm: float = Field(gt=0.0)
    neftune_alpha: float = Field(ge=0.0, description="noise on the embeddings; 0 is none")
    guard: GuardParams
    checkpoints: CheckpointParams
    evaluate_every_steps: int = Field(ge=0, description="0: only before and after")
    max_valid_conversations: int = Field(ge=16)
    attention: Literal["sdpa", "varlen", "flex"]
    compile: bool = Field(description="torch.compile the model; for GPUs")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> "SftParams":
        if self.schedule.warmup_steps >= self.num_steps:
            raise ValueError(
                f"sft.schedule.warmup_steps is {self.schedule.warmup_steps}; it must be below "
                f"sft.num_steps {self.num_steps}"
            )
        return self
