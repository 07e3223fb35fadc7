"""Conversations from documents, by stated rules. The answer is always the documentation's own text.

- `operation_purpose`: what does operation X of service S do? The description's first sentences.
- `parameter_meaning`: what does parameter Y of operation X mean? The parameter's first sentences.
- `page_lead`: what does page T say? The page's first sentences.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.ingest.api_models import Operation
from components.ingest.extract import html_to_text
from components.ingest.split import choose

Questions = Mapping[str, Sequence[str]]

SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)\s+(?=[A-Z0-9\"'(])")
LIST_ITEM = re.compile(r"^\s*(?:[•◦▪*-]|\d+\.)\s")


@dataclass(frozen=True)
class Exchange:
    """One question and its answer."""

    rule: str
    topic: str  # what it is about; an answer on another topic is a wrong one
    question: str
    answer: str


def first_sentences(text: str, min_chars: int, max_chars: int) -> str:
    """The longest run of whole sentences from the start of `text` within `max_chars`, on one line.

    Stops before a list and does not end in a sentence that announces one. Empty if what is left is
    shorter than `min_chars`, or if not even the first sentence fits.
    """
    sentences: list[str] = []
    length = 0
    for paragraph in text.split("\n\n"):
        if LIST_ITEM.match(paragraph):
            break
        line = " ".join(paragraph.split())
        for sentence in SENTENCE_END.split(line) if line else ():
            length += len(sentence) + bool(sentences)
            if length > max_chars:
                return _joined(sentences, min_chars)
            sentences.append(sentence)
    return _joined(sentences, min_chars)


def _joined(sentences: list[str], min_chars: int) -> str:
    while sentences and sentences[-1].endswith(":"):
        sentences.pop()
    answer = " ".join(sentences).strip()
    return answer if len(answer) >= min_chars else ""


def ask(questions: Questions, rule: str, answer: str, names: Mapping[str, str]) -> str:
    """One phrasing of the rule's question, chosen by content."""
    phrasings = questions[rule]
    return phrasings[choose(len(phrasings), "phrasing", rule, answer, *names.values())].format(
        **names
    )


def operation_exchanges(
    operation: Operation,
    questions: Questions,
    num_parameters: int,
    min_chars: int,
    max_chars: int,
) -> Iterator[Exchange]:
    """The operation's purpose, and the meaning of up to `num_parameters` of its parameters.

    The parameters come in the order of their hash; those without an answer of a fitting length are
    passed over.
    """
    names = {"operation": operation.name, "service": operation.service}
    answer = _answer(operation.documentation, min_chars, max_chars)
    if answer:
        question = ask(questions, "operation_purpose", answer, names)
        yield Exchange("operation_purpose", operation.name, question, answer)
    documented = [member for member in operation.parameters if member.documentation]
    by_hash = sorted(
        documented, key=lambda member: choose(2**53, "parameter", operation.path, member.name)
    )
    num_left = num_parameters
    for member in by_hash:
        if num_left == 0:
            break
        answer = _answer(member.documentation, min_chars, max_chars)
        if answer:
            named = names | {"parameter": member.name}
            question = ask(questions, "parameter_meaning", answer, named)
            yield Exchange("parameter_meaning", member.name, question, answer)
            num_left -= 1


def page_exchange(
    title: str, text: str, questions: Questions, min_chars: int, max_chars: int
) -> Exchange | None:
    """What the page says first; None without a title or without a fitting beginning."""
    title = " ".join(title.split())
    body = text.removeprefix(title).lstrip()
    answer = first_sentences(body, min_chars, max_chars)
    if not title or not answer:
        return None
    question = ask(questions, "page_lead", answer, {"title": title})
    return Exchange("page_lead", title, question, answer)


def _answer(html: str, min_chars: int, max_chars: int) -> str:
    return first_sentences(html_to_text(html, "resiliparse_all"), min_chars, max_chars)
