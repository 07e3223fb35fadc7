"""What torch compiles before it runs, which takes seconds."""

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from components.model.llama import ATTENTION


def test_under_bf16_autocast_torch_itself_casts_for_flex() -> None:
    implementation: Any = ALL_ATTENTION_FUNCTIONS[ATTENTION["flex"]]
    query, key = torch.randn(1, 4, 8, 16), torch.randn(1, 4, 8, 16)
    value = torch.randn(1, 4, 8, 16).to(torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = implementation(torch.nn.Module().eval(), query, key, value, None, scaling=0.25)
    assert out.dtype == torch.bfloat16
