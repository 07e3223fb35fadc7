"""The `pretrain` section of params.yaml."""

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


class ModelParams(Section):
    hidden_size: int = Field(ge=16)
    intermediate_size: int = Field(ge=16, description="width of the SwiGLU layer")
    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1, description="heads of keys and values, shared by the queries'")
    max_length: int = Field(ge=16, description="tokens that positions are meant for")
    rope_theta: float = Field(gt=1.0)
    norm_eps: float = Field(gt=0.0)

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelParams":
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of 2 x num_heads = "
                f"{2 * self.num_heads}, for RoPE turns pairs within a head"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads is {self.num_heads}; it must be a multiple of num_kv_heads = "
                f"{self.num_kv_heads}"
            )
        return self


class PretrainParams(Section):
    model: ModelParams
    batch: BatchParams
    num_steps: int = Field(ge=1)
    optimiser: AdamWParams
    schedule: ScheduleParams
    max_grad_norm: float = Field(gt=0.0)
    guard: GuardParams
    checkpoints: CheckpointParams
    evaluate_every_steps: int = Field(ge=0, description="0: only before and after")
    max_valid_tokens: int = Field(ge=1024, description="of the validation split, whole documents")
    attention: Literal["sdpa", "varlen", "flex"]
    compile: bool = Field(description="torch.compile the model; for GPUs")

    @model_validator(mode="after")
    def _fits(self) -> "PretrainParams":
        if self.batch.row_length > self.model.max_length:
            raise ValueError(
                f"pretrain.batch.row_length is {self.batch.row_length}, above "
                f"pretrain.model.max_length {self.model.max_length}"
            )
        if self.schedule.warmup_steps >= self.num_steps:
            raise ValueError(
                f"pretrain.schedule.warmup_steps is {self.schedule.warmup_steps}; it must be below "
                f"pretrain.num_steps {self.num_steps}"
            )
        return self
