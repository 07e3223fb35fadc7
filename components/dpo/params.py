"""The `dpo` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from components.section import Section
from components.train.params import AdamWParams, CheckpointParams, GuardParams, ScheduleParams


class RatedPairsParams(Section):
    """Pairs of responses that the crowd rated."""

    min_margin: float = Field(ge=0, le=4, description="in the crowd's expected reward")
    num_prompts: int = Field(ge=0, description="of the rated ones, at most")
    pairs_per_prompt: int = Field(ge=1, description="at most; chosen by seed among all")


class SampledPairsParams(Section):
    """Pairs of the policy's own answers, ranked by the reward model."""

    min_margin: float = Field(ge=0, le=4, description="in the reward model's expected reward")
    num_prompts: int = Field(ge=0)
    samples_per_prompt: int = Field(ge=2, le=64)
    temperature: float = Field(gt=0, le=2)
    top_p: float = Field(gt=0, le=1)


class DpoParams(Section):
    """Direct preference optimisation of the SFT model."""

    loss: Literal["sigmoid", "cdpo", "ipo"]
    beta: float = Field(gt=0, description="price of leaving the reference; IPO's tau")
    label_smoothing: float = Field(ge=0, lt=0.5, description="share of wrong labels; cdpo only")
    rated: RatedPairsParams
    sampled: SampledPairsParams
    max_new_tokens: int = Field(ge=1, description="of a sampled answer")
    generation_batch_size: int = Field(ge=1, description="answers that grow side by side")
    row_length: int = Field(ge=32, description="tokens of a packed row, and of the longest answer")
    pairs_per_batch: int = Field(ge=1)
    pairs_per_micro_batch: int = Field(ge=1)
    num_steps: int = Field(ge=1)
    optimiser: AdamWParams
    schedule: ScheduleParams
    max_grad_norm: float = Field(gt=0)
    guard: GuardParams
    checkpoints: CheckpointParams
    evaluate_every_steps: int = Field(ge=0, description="on held-out pairs; 0: before and after")
    num_held_out_prompts: int = Field(ge=2, description="of the validation split, at most")
    num_resamples: int = Field(ge=100, description="of the bootstrap behind each standard error")

    @model_validator(mode="after")
    def _fits(self) -> "DpoParams":
        if self.pairs_per_batch % self.pairs_per_micro_batch:
            raise ValueError(
                f"pairs_per_batch is {self.pairs_per_batch}; it must be a multiple of "
                f"pairs_per_micro_batch = {self.pairs_per_micro_batch}"
            )
        if self.schedule.warmup_steps >= self.num_steps:
            raise ValueError(
                f"dpo.schedule.warmup_steps is {self.schedule.warmup_steps}; it must be below "
                f"dpo.num_steps {self.num_steps}"
            )
        if self.max_new_tokens >= self.row_length:
            raise ValueError(
                f"dpo.max_new_tokens is {self.max_new_tokens}; it must be below dpo.row_length "
                f"{self.row_length}, for the prompt stands in the same row"
            )
        if self.rated.num_prompts + self.sampled.num_prompts == 0:
            raise ValueError(
                "dpo.rated.num_prompts and dpo.sampled.num_prompts are both 0; pairs must come "
                "from one of them, so one must be 1 or more"
            )
        return self
