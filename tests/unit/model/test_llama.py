from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from components.errors import DataError
from components.model.llama import (
    flops_per_token,
    llama_config,
    load_model,
    num_parameters,
    save_model,
)
from tests.small_models import small_model, small_tokenizer

YI = {
    "6B": (4096, 11008, 32, 32, 4, 6_061_035_520),
    "9B": (4096, 11008, 48, 32, 4, 8_829_407_232),
    "34B": (7168, 20480, 60, 56, 8, 34_388_917_248),
}


@pytest.mark.parametrize("name", YI)
def test_yis_sizes_have_yis_number_of_parameters(name: str) -> None:
    hidden, intermediate, layers, heads, kv_heads, want = YI[name]
    config = llama_config(
        vocab_size=64_000,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        max_length=4096,
        rope_theta=5e6,
        norm_eps=1e-5,
    )
    with torch.device("meta"):
        assert num_parameters(LlamaForCausalLM(config)) == want


def test_flops_agree_with_torchs_counter_but_for_the_causal_half() -> None:
    model = small_model(vocab_size=256)
    ids = torch.zeros(1, 64, dtype=torch.long)
    model.config._attn_implementation = "eager"
    with FlopCounterMode(display=False) as counter:
        model(ids).logits.sum().backward()
    # The counter knows no causal mask: to it, every position attends to all 64.
    ours = flops_per_token(model, 64) * 64
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.02)
    not_computed = (64 - 65 / 2) * 12 * model.config.num_hidden_layers * model.config.hidden_size
    assert flops_per_token(model, 65 / 2) * 64 == pytest.approx(ours - not_computed * 64)


def test_a_saved_model_loads_here_and_in_transformers_with_its_tokenizer(tmp_path: Path) -> None:
    tokenizer: Any = small_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = small_model().eval()
    save_model(model, tmp_path / "tokenizer", tmp_path / "model")
    ids = torch.tensor([tokenizer("Lists the objects")["input_ids"]])
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        want = model(ids).logits
        assert torch.equal(load_model(tmp_path / "model")(ids).logits, want)
        assert torch.equal(theirs(ids).logits, want)
    again: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert again("Lists the objects")["input_ids"] == ids[0].tolist()
    assert again.chat_template == tokenizer.chat_template
    assert theirs.generation_config.eos_token_id == [2, 7]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_cut_off_model_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    tokenizer: Any = small_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    save_model(small_model(), tmp_path / "tokenizer", tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="not a whole model") as info:
        load_model(tmp_path / "model")
    assert "\n" not in info.value.message
