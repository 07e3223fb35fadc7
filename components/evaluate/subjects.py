"""The four models, and how each one is asked a question."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer

from components.chat import encode_text, encode_texts
from components.model.compressed import load_compressed, unpack
from components.model.llama import load_model
from components.model.rows import ResponseRow, encode_prompts, encode_responses
from components.tokens import END_OF_TEXT_ID, START_OF_TEXT_ID


class Subject(NamedTuple):
    name: str
    before: str | None
    """The model it was made from: what its changes are against."""
    chats: bool
    """Whether it was taught ChatML; else a question is a document's first paragraph to it."""
    compressed: bool = False
    """Whether its weights are packed integers."""


SUBJECTS = (
    Subject("base", None, chats=False),
    Subject("sft", "base", chats=True),
    Subject("dpo", "sft", chats=True),
    Subject("quantized", "dpo", chats=True, compressed=True),
)


def load_subject(subject: Subject, folder: Path) -> tuple[Any, Any]:
    """The model and its tokenizer. Raises DataError if the folder holds no whole model."""
    if subject.compressed:
        model = load_compressed(folder)
        unpack(model)
    else:
        model = load_model(folder)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def prompt_ids(subject: Subject, tokenizer: Any, questions: Sequence[str]) -> list[list[int]]:
    """Each question as ids that end where an answer begins."""
    if subject.chats:
        return encode_prompts(tokenizer, questions)
    return [[START_OF_TEXT_ID, *encode_text(tokenizer, f"{text}\n\n")] for text in questions]


def answer_rows(
    subject: Subject, tokenizer: Any, questions: Sequence[str], answers: Sequence[str]
) -> list[ResponseRow]:
    """Each question with its answer and the marker that ends it."""
    if subject.chats:
        return encode_responses(tokenizer, questions, answers)
    return [
        ResponseRow([*prompt, *answer, END_OF_TEXT_ID], len(prompt))
        for prompt, answer in zip(
            prompt_ids(subject, tokenizer, questions),
            encode_texts(tokenizer, answers),
            strict=True,
        )
    ]
