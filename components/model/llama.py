"""The model: a transformers Llama with grouped-query attention, built, loaded and saved.

Architecture as Yi's (arXiv 2403.04652, Table 1): RMSNorm, SwiGLU, RoPE, GQA, untied embeddings.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from components.errors import DataError, UserError
from components.model.attention import VARLEN
from components.tokens import END_OF_TEXT_ID, IM_END_ID, START_OF_TEXT_ID, UNKNOWN_ID

WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer", "special_tokens", "chat_template")
ATTENTION = {"sdpa": "sdpa", "varlen": VARLEN, "flex": "flex_attention"}
"""Our name of an attention implementation, and transformers'."""
Attention = Literal["sdpa", "varlen", "flex"]


def default_device() -> torch.device:
    """The GPU of this rank if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def llama_config(
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    max_length: int,
    rope_theta: float,
    norm_eps: float,
    initializer_range: float = 0.02,
) -> LlamaConfig:
    """Untied embeddings; head size is hidden_size / num_heads; max_length in tokens."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        max_position_embeddings=max_length,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        rms_norm_eps=norm_eps,
        initializer_range=initializer_range,
        tie_word_embeddings=False,
        bos_token_id=START_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
    )


def build_model(
    config: LlamaConfig, *, seed: int, attention: Attention = "sdpa"
) -> LlamaForCausalLM:
    """A freshly initialised model in fp32 on the default device; equal for equal seeds.

    `attention`: `sdpa` masks other documents away; `varlen` (for packed rows only) never computes
    them; `flex` is torch's flex_attention, which skips whole blocks of them, on a GPU only.
    """
    if attention == "flex" and default_device().type == "cpu":
        raise UserError("attention: flex has no gradient on a CPU", "choose varlen or sdpa")
    torch.manual_seed(seed)
    config._attn_implementation = ATTENTION[attention]
    model: Any = LlamaForCausalLM(config)
    generation: Any = GenerationConfig
    model.generation_config = generation(
        bos_token_id=START_OF_TEXT_ID,
        eos_token_id=[END_OF_TEXT_ID, IM_END_ID],
        pad_token_id=UNKNOWN_ID,
    )
    built: LlamaForCausalLM = model.to(default_device())
    return built


def load_model(folder: Path, *, attention: Attention = "sdpa") -> LlamaForCausalLM:
    """A saved model in fp32 on the default device, in evaluation mode.

    Raises DataError if the folder holds no whole model.
    """
    try:
        config: Any = LlamaConfig.from_pretrained(folder, local_files_only=True)
        config._attn_implementation = ATTENTION[attention]
        model: Any = LlamaForCausalLM(config)
        model.load_state_dict(load_file(folder / WEIGHTS))
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{folder}: not a whole model ({first_line})",
            "restore it with `dvc checkout`, or run the stage that wrote it again",
        ) from error
    loaded: LlamaForCausalLM = model.to(default_device()).eval()
    return loaded


def save_model(model: Any, tokenizer_folder: Path, folder: Path) -> None:
    """A transformers folder with the tokenizer inside: `from_pretrained` needs nothing else.

    Weights are written in the type they have. `tokenizer_folder` may be another model's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = model.dtype
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    copy_tokenizer(tokenizer_folder, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files of one folder into another."""
    for path in sorted(source.iterdir()):
        if path.name.startswith(TOKENIZER_FILES):
            shutil.copyfile(path, folder / path.name)


def num_parameters(model: torch.nn.Module, *, embeddings: bool = True) -> int:
    """Number of weights; without `embeddings` the input table is left out (it costs no FLOPs)."""
    return sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if embeddings or not name.endswith("embed_tokens.weight")
    )


def flops_per_token(
    model: LlamaForCausalLM, mean_attended: float, target_fraction: float = 1.0
) -> float:
    """Forward and backward FLOPs for one token that attends to `mean_attended` ones, itself included.

    6 for each weight that multiplies (all but the input table) and 12 * layers * width *
    mean_attended for attention (PaLM, arXiv 2204.02311, appendix B, where every token attends to the
    whole row). In packed rows it is `Packing.mean_attended`. The output layer is only computed for
    the `target_fraction` (0..1) of the positions that have a target.
    """
    config = model.config
    head_size = config.hidden_size // config.num_attention_heads
    width = config.num_attention_heads * head_size
    attention = 12 * config.num_hidden_layers * width * mean_attended
    output = config.vocab_size * config.hidden_size
    inner = num_parameters(model, embeddings=False) - output
    return 6 * (inner + target_fraction * output) + attention
