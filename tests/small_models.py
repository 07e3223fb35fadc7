"""Small real models and tokenizers for tests: random weights, the project's architecture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from components.chat import CHAT_TEMPLATE
from components.model.llama import build_model, llama_config, save_model
from components.tokens import SPECIAL_TOKENS

TEXTS = (
    "Creates a bucket for objects.",
    "Deletes the bucket. Its objects must be deleted before.",
    "Lists the objects of a bucket, one page after the other.",
)


def small_tokenizer(texts: Sequence[str] = TEXTS, vocab_size: int = 300) -> Any:
    """Byte-level BPE with the project's special tokens at their ids; any text survives it."""
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        pad_token="<unk>",
        chat_template=CHAT_TEMPLATE,
    )


def small_model(vocab_size: int = 300, seed: int = 0, **sizes: int) -> LlamaForCausalLM:
    """Two layers of width 64 with grouped-query attention; large weights, so that outputs differ."""
    config = llama_config(
        **{
            "vocab_size": vocab_size,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "max_length": 128,
            "rope_theta": 10000.0,
            "norm_eps": 1e-5,
            "initializer_range": 0.2,
        }
        | sizes
    )
    return build_model(config, seed=seed).eval()


def write_model(folder: Path, seed: int = 0) -> Path:
    """A model folder with its tokenizer, as the training stages publish it."""
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    save_model(small_model(len(tokenizer), seed), folder / "tokenizer", folder / "model")
    return folder / "model"
