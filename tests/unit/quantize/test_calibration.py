"""Calibration where the model is on a GPU and its data is not.

torch's fake tensors stand in for the GPU: they compute nothing, but know their device, and refuse
to mix two as a GPU does.
"""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaForCausalLM

from components.quantize.calibration import cache_scales, input_hessians
from components.quantize.stage import linear_layers
from tests.small_models import small_model

GPU = torch.device("cuda", 0)


def test_rows_in_main_memory_calibrate_a_model_on_a_gpu() -> None:
    config = small_model().config
    with FakeTensorMode():
        with GPU:
            model: Any = LlamaForCausalLM(config).eval()
        rows = torch.zeros(10, 20, dtype=torch.int64, device="cpu")
        layers = linear_layers(model, 32)
        hessians = input_hessians(model, layers, rows)
        scales = cache_scales(model, rows)
    assert {hessian.device for hessian in hessians.values()} == {GPU}
    assert hessians["model.layers.1.mlp.down_proj"].shape == (96, 96)
    assert {scale.device for layer in scales for scale in layer} == {GPU}
