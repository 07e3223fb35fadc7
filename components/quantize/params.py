"""The `quantize` section of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from components.section import Section


class DamageParams(Section):
    max_tokens: int = Field(ge=1024, description="of held-out documents, for bits per byte")
    context_tokens: int = Field(ge=2, description="the longest row a token is predicted in")
    stride_tokens: int = Field(
        ge=1, description="how far one row of a long document is from the next"
    )
    num_task_items: int = Field(ge=2, description="multiple-choice items")
    task_rules: list[str] = Field(min_length=1, description="conversations the task is made from")

    @model_validator(mode="after")
    def _overlap(self) -> "DamageParams":
        if self.stride_tokens > self.context_tokens:
            raise ValueError(
                f"stride_tokens is {self.stride_tokens}; it must not exceed context_tokens "
                f"{self.context_tokens}, or tokens would be skipped"
            )
        return self


class QuantizeParams(Section):
    group_size: int = Field(ge=8, description="neighbouring weights of a row that share a scale")
    method: Literal["nearest", "gptq"]
    scale_search: Literal["minmax", "mse"]
    unquantized_dtype: Literal["float32", "bfloat16", "float16"]
    calibration_tokens: int = Field(ge=512, description="of the training documents")
    damage: DamageParams
