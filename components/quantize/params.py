"""The `quantize` section of params.yaml."""

from typing import Literal

from pydantic import Field

from components.measure.params import BitsParams, TaskParams
from components.section import Section


class QuantizeParams(Section):
    group_size: int = Field(ge=8, description="neighbouring weights of a row that share a scale")
    method: Literal["nearest", "gptq"]
    scale_search: Literal["minmax", "mse"]
    unquantized_dtype: Literal["float32", "bfloat16", "float16"]
    calibration_tokens: int = Field(ge=512, description="of the training documents")
    bits: BitsParams
    task: TaskParams
