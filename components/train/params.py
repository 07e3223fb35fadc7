"""Parts of params.yaml that every training stage has."""

from pydantic import Field, model_validator

from components.section import Section
from components.train.schedule import ScheduleKind


class AdamWParams(Section):
    beta1: float = Field(ge=0.0, lt=1.0)
    beta2: float = Field(ge=0.0, lt=1.0)
    eps: float = Field(gt=0.0)
    weight_decay: float = Field(ge=0.0, description="of matrices, decoupled from the gradient")


class ScheduleParams(Section):
    kind: ScheduleKind
    learning_rate: float = Field(gt=0.0, le=1.0, description="the highest, after the warm-up")
    warmup_steps: int = Field(ge=0)
    final_fraction: float = Field(ge=0.0, le=1.0, description="of learning_rate, at the last step")
    decay_fraction: float = Field(gt=0.0, le=1.0, description="share of the steps; wsd only")


class GuardParams(Section):
    spike_z: float = Field(gt=0.0, description="robust standard deviations above the median")
    window_steps: int = Field(ge=5)
    max_skipped_steps: int = Field(ge=0)


class CheckpointParams(Section):
    every_steps: int = Field(ge=1)
    keep: int = Field(ge=1)


class BatchParams(Section):
    row_length: int = Field(ge=16, description="tokens of a packed row")
    tokens_per_batch: int = Field(ge=16, description="tokens of one optimiser step, on all ranks")
    rows_per_micro_batch: int = Field(ge=1, description="rows that one rank holds at a time")

    @model_validator(mode="after")
    def _divides(self) -> "BatchParams":
        step = self.row_length * self.rows_per_micro_batch
        if self.tokens_per_batch % step:
            raise ValueError(
                f"tokens_per_batch is {self.tokens_per_batch}; it must be a multiple of row_length "
                f"x rows_per_micro_batch = {self.row_length} x {self.rows_per_micro_batch} = {step}"
            )
        return self

    @property
    def rows_per_batch(self) -> int:
        return self.tokens_per_batch // self.row_length
