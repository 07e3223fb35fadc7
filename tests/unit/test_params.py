"""params.yaml and the examples: whole, typed, and in agreement from section to section."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.contract import STAGES
from components.errors import UserError
from components.params import PARAMS_OF, load_params, parse_params
from components.section import read_yaml

ROOT = Path(__file__).parents[2]
FILES = sorted([ROOT / "params.yaml", *(ROOT / "examples").glob("*.yaml")])


def changed(key: str, value: Any) -> Any:
    values = json.loads(json.dumps(read_yaml(ROOT / "params.yaml")))
    inner = values
    *path, last = key.split(".")
    for part in path:
        inner = inner[part]
    inner[last] = value
    return values


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_params_file_is_whole_and_lists_the_stages_in_their_order(path: Path) -> None:
    load_params(path)
    assert list(read_yaml(path)) == ["seed", *STAGES]


def test_every_stage_has_a_section() -> None:
    assert tuple(PARAMS_OF) == STAGES


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "sft.batch",
            {"row_length": 2048, "tokens_per_batch": 8192, "rows_per_micro_batch": 4},
            "sft.batch.row_length: 2048 is above pretrain.model.max_length 1024",
        ),
        ("dpo.row_length", 1025, "dpo.row_length: 1025 is above pretrain.model.max_length 1024"),
        ("reward_model.row_length", 4096, "reward_model.row_length: 4096 is above"),
        ("evaluate.bits.context_tokens", 2048, "evaluate.bits.context_tokens: 2048 is above"),
        (
            "quantize.group_size",
            128,
            "quantize.group_size: 128 does not divide pretrain.model.intermediate_size 320",
        ),
        ("dpo.betta", 0.1, "dpo.betta: unknown key; remove it or mend its spelling"),
        ("dpo.beta", "0.1", 'dpo.beta: Input should be a valid number, got "0.1"'),
        ("dpo.beta", -1.0, "dpo.beta: Input should be greater than 0, got -1.0"),
        ("dpo.beta", float("nan"), "dpo.beta: Input should be a finite number, got NaN"),
        (
            "tokenize.training_sample_mb",
            float("inf"),
            "tokenize.training_sample_mb: Input should be a finite number, got Infinity",
        ),
        (
            "clean.rules.num_words",
            [float("nan"), None],
            "clean.rules.num_words.0: Input should be a finite number, got NaN",
        ),
        ("seed", -1, "seed: Input should be greater than or equal to 0, got -1"),
    ],
)
def test_a_wrong_value_is_one_line_with_file_key_and_reason(
    key: str, value: Any, line: str
) -> None:
    with pytest.raises(UserError) as caught:
        parse_params(changed(key, value), "params.yaml")
    assert str(caught.value).splitlines()[0].startswith(f"params.yaml: {line}")


def test_every_fault_gets_its_line() -> None:
    values = changed("dpo.row_length", 2000)
    values["quantize"]["group_size"] = 128
    with pytest.raises(UserError) as caught:
        parse_params(values, "params.yaml")
    assert len(str(caught.value).splitlines()) == 2
    assert all(line.startswith("params.yaml: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    "location", ["https://jane:planted@host/a.txt", "https://host/a.txt?access_token=planted"]
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(location: str) -> None:
    values = changed("seed", 1)
    values["ingest"]["sources"][0]["location"] = location
    with pytest.raises(UserError) as caught:
        parse_params(values, "params.yaml")
    assert caught.value.message == (
        "params.yaml: ingest.sources.0.location: an address with a password or a key in it"
    )
    assert "FSSPEC_HTTPS" in caught.value.hint
    assert "planted" not in caught.value.line
