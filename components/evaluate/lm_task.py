"""The multiple-choice task, run by lm-eval (EleutherAI) on models in memory.

The task is local: its YAML and its rows are written to a folder of ours and nothing is fetched. Each
model reads the question in a form it was taught: ChatML after fine-tuning, a document before.
"""

import contextlib
import io
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import datasets
import numpy as np
from lm_eval import evaluator
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager, get_task_dict
from numpy.typing import NDArray
from ruamel.yaml import YAML

from components.chat import render
from components.measure.choices import Item
from components.measure.choosing import Correct
from components.model.logprobs import response_logprobs
from components.model.rows import ResponseRow

Array = NDArray[np.float64]

METRICS = {"raw": "acc", "normalised": "acc_norm", "mutual_information": "acc_mutual_info"}
"""`Correct`'s name and lm-eval's."""
FORMS = ("chat", "title", "question")
START_OF_TEXT = "<|startoftext|>"


def context(item: Item, form: str) -> str:
    """What stands before a choice: `chat` is a user's turn; `title`, `question` begin a document."""
    if form == "chat":
        return render([{"role": "user", "content": item.question}], add_generation_prompt=True)
    opening = item.title if form == "title" else item.question
    return f"{START_OF_TEXT}{opening.replace('<|', '< |')}\n\n"


def write_tasks(folder: Path, items: Sequence[Item]) -> None:
    """One YAML and one JSONL for each form of the question."""
    folder.mkdir(parents=True, exist_ok=True)
    for form in FORMS:
        rows = folder / f"{form}.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for item in items:
                row = {"context": context(item, form), "choices": item.choices, "gold": item.answer}
                file.write(json.dumps(row) + "\n")
        task = {
            "task": form,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(rows)},
                "cache_dir": str(folder / "cache"),
            },
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "context",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True}
                for name in METRICS.values()
            ],
        }
        with (folder / f"{form}.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(task, file)


class InMemoryModel(LM):
    """lm-eval's view of one of our models: how likely is this text after that one?

    Its own HFLM gives the same raw answers in three times the time. It also takes white space off
    a context's end and counts it to the choice, which shifts the figures per character.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self._model = model
        self._tokenizer = tokenizer

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log P(continuation | context), False) for each request; equal ones are asked once.

        Without a context the continuation begins a document. Whether it is what the model would
        itself have said is not looked at: no metric here asks.
        """
        pairs = list(dict.fromkeys(request.args for request in requests))
        contexts = self._encode([before or START_OF_TEXT for before, _ in pairs], special=True)
        texts = self._encode([text for _, text in pairs], special=False)
        rows = [
            ResponseRow([*before, *text], len(before))
            for before, text in zip(contexts, texts, strict=True)
        ]
        scores = dict(zip(pairs, response_logprobs(self._model, rows).tolist(), strict=True))
        return [(scores[request.args], False) for request in requests]

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=not special
        )["input_ids"]
        return ids

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("a multiple-choice task asks for log-likelihoods alone")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("a multiple-choice task asks for log-likelihoods alone")


def run_task(model: LM, folder: Path, form: str) -> Correct:
    """Ask `model` every question of `write_tasks`' folder in this form, in the items' order."""
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars, one for each step
        outcome: Any = evaluator.evaluate(
            lm=model,
            task_dict=get_task_dict([form], manager),
            bootstrap_iters=0,
            log_samples=True,
        )
    samples = sorted(outcome["samples"][form], key=lambda sample: sample["doc_id"])
    return Correct(
        **{
            name: np.array([float(sample[metric]) for sample in samples])
            for name, metric in METRICS.items()
        }
    )
