"""Reward models: the SFT model's backbone and one linear layer on an answer's last token.

With six outputs it is DPRM (arXiv 2402.09764): softmax gives the predicted preference distribution,
whose expected reward is the scalar. With one output it is a Bradley-Terry score, the baseline.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

from components.errors import DataError
from components.model.llama import copy_tokenizer, default_device
from components.model.packed import hidden_states
from components.model.rows import (
    ResponseRow,
    batches_by_length,
    encode_responses,
    padded_batch,
    to_device,
)
from components.preference.crowd import Array, expected_reward
from components.schemas import NUM_CATEGORIES

CONFIG_FILE = "config.json"
HEAD_FILE = "head.json"
WEIGHTS_FILE = "model.safetensors"


class RewardModel(nn.Module):
    """`backbone` is a Llama without its language-model head; the head gives `num_outputs`."""

    def __init__(self, backbone: LlamaModel, num_outputs: int) -> None:
        super().__init__()
        self.model: Any = backbone
        self.head = nn.Linear(backbone.config.hidden_size, num_outputs)
        # Zero weights: the untrained model predicts what its bias says, whatever the answer.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def config(self) -> Any:
        """The backbone's."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Head outputs [N, num_outputs] at the answers' last tokens, for a batch of `rows`."""
        hidden = hidden_states(self, batch["input_ids"], batch["position_ids"]).flatten(0, 1)
        output: Tensor = self.head(hidden[batch["last"]]).float()
        return output


@torch.no_grad()
def head_outputs(
    model: RewardModel, rows: Sequence[ResponseRow], max_tokens_per_batch: int = 8192
) -> Array:
    """Outputs of many rows, in their order; [N, num_outputs] float64."""
    result = np.empty((len(rows), model.head.out_features))
    for batch in batches_by_length([len(row.ids) for row in rows], max_tokens_per_batch):
        tensors = to_device(padded_batch([rows[i] for i in batch]), model.device)
        result[batch] = model(tensors).double().cpu().numpy()
    return result


def predict_distributions(model: RewardModel, rows: Sequence[ResponseRow]) -> Array:
    """DPRM's predicted preference distribution mu^s of each answer; [N, 6]."""
    outputs = head_outputs(model, rows)
    shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def score(
    model: RewardModel, tokenizer: Any, prompts: Sequence[str], responses: Sequence[str]
) -> Array:
    """One number for each answer, higher is better; [N].

    DPRM's expected reward in [-3, 1], or the Bradley-Terry score, whose zero means nothing.
    """
    rows = encode_responses(tokenizer, prompts, responses)
    if model.head.out_features == NUM_CATEGORIES:
        return expected_reward(predict_distributions(model, rows))
    return head_outputs(model, rows)[:, 0]


def save_reward_model(model: RewardModel, tokenizer_folder: Path, folder: Path) -> None:
    """Backbone config, one safetensors file of all weights, the head's width, and the tokenizer."""
    folder.mkdir(parents=True)
    model.config.to_json_file(folder / CONFIG_FILE)
    copy_tokenizer(tokenizer_folder, folder)
    (folder / HEAD_FILE).write_text(json.dumps({"num_outputs": model.head.out_features}) + "\n")
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_reward_model(folder: Path) -> tuple[RewardModel, Any]:
    """The model in fp32 on the default device, in evaluation mode, and its tokenizer.

    Raises DataError if the folder holds no whole reward model.
    """
    try:
        head = json.loads((folder / HEAD_FILE).read_text())
        config: Any = LlamaConfig.from_json_file(folder / CONFIG_FILE)
        model = RewardModel(LlamaModel(config), int(head["num_outputs"]))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{folder}: not a whole reward model ({first_line})",
            "restore it with `dvc checkout`, or run the stage that wrote it again",
        ) from error
    return model.to(default_device()).eval(), tokenizer
