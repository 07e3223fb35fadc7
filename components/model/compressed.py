"""A compressed-tensors model, as transformers loads it."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM

from components.errors import DataError
from components.model.llama import WEIGHTS, default_device


def load_compressed(folder: Path) -> Any:
    """The model on the default device, in evaluation mode, with its weights still packed.

    Its first forward pass unpacks them; its keys and values go through int8 each time they are
    made. Raises DataError if the folder holds no whole model.
    """
    if not (folder / WEIGHTS).is_file():  # else transformers would ask the hub for the folder
        raise DataError(f"{folder}: no model", "restore it with `dvc checkout`, or run quantize")
    try:
        # The libraries draw a progress bar for each layer on stderr.
        with contextlib.redirect_stderr(io.StringIO()):
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{folder}: not a whole compressed model ({first_line})",
            "restore it with `dvc checkout`, or run quantize again",
        ) from error
    return model.to(default_device()).eval()


def unpack(model: Any) -> None:
    """Unpack the weights now rather than in the first forward pass."""
    with contextlib.redirect_stderr(io.StringIO()), torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.int64, device=model.device))


def num_bytes(model: Any) -> int:
    """Bytes of the tensors that the model holds."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
