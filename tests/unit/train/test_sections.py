"""The sections of tokenize, pretrain and sft: rules between their keys."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from components.pretrain.params import PretrainParams
from components.sft.params import SftParams
from components.tokenize.params import TokenizeParams

ROOT = Path(__file__).parents[3]
SECTIONS = {"tokenize": TokenizeParams, "pretrain": PretrainParams, "sft": SftParams}


def section(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))[
        name
    ]


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("pretrain", "batch.tokens_per_batch", 3000, "tokens_per_batch is 3000; it must be a mult"),
        (
            "pretrain",
            "model.max_length",
            256,
            "row_length is 512, above pretrain.model.max_length 256",
        ),
        ("pretrain", "model.num_heads", 3, "multiple of 2 x num_heads = 6"),
        ("pretrain", "model.num_kv_heads", 3, "must be a multiple of num_kv_heads = 3"),
        ("pretrain", "schedule.warmup_steps", 5000, "must be below pretrain.num_steps"),
        ("sft", "schedule.warmup_steps", 300, "must be below sft.num_steps 300"),
        ("tokenize", "training_sample_mb", 0.01, "too little text for tokenize.vocab_size 4096"),
    ],
)
def test_rules_between_keys_name_the_keys(name: str, key: str, value: Any, message: str) -> None:
    values = section(name)
    inner = values
    *path, last = key.split(".")
    for part in path:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(ValidationError, match=message):
        SECTIONS[name].model_validate_json(json.dumps(values))
