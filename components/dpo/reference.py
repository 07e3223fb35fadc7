"""The reference's log-probabilities: computed once, kept under the digest of what they depend on.

A restart, or another run over the same pairs, reads them instead of holding a second model.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.model.rows import ResponseRow

METHOD = 1
"""Part of the digest: raise it when the same rows and weights come to other log-probabilities."""


def weights_digest(model_folder: Path) -> str:
    """SHA-256 over a saved model's weight files, in the order of their names; 64 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(model_folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def reference_digest(weights: str, rows: Sequence[ResponseRow], device: torch.device) -> str:
    """Names the log-probabilities of `rows` under the weights with digest `weights`.

    As computed on this kind of device, which decides the precision, by this version of torch with
    so many threads, on which the last bits depend.
    """
    how = f"{METHOD} {device.type} {torch.__version__} {torch.get_num_threads()}"
    digest = hashlib.sha256(f"{weights} {how}".encode())
    for row in rows:
        digest.update(f"\n{row.start}:{','.join(map(str, row.ids))}".encode())
    return digest.hexdigest()


def stored_logprobs(
    folder: Path, digest: str, num_rows: int, compute: Callable[[], Tensor]
) -> tuple[Tensor, bool]:
    """`folder/<digest>.safetensors` if it is whole, else what `compute` gives, stored there.

    Returns the log-probabilities [num_rows] and whether they were read. The file appears by rename,
    so any number of runs may share the folder; reading it makes it the one used last.
    """
    path = folder / f"{digest}.safetensors"
    try:
        found = load_file(path)["logprobs"]
        if found.shape == (num_rows,) and bool(torch.isfinite(found).all()):
            os.utime(path)
            return found, True
    except (OSError, KeyError, SafetensorError):
        pass  # not there yet, or damaged: computed again
    logprobs = compute().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
        save_file({"logprobs": logprobs}, part.name)
    os.replace(part.name, path)
    return logprobs, False
