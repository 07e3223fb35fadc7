"""What the models got for each test item, by which two versions are compared in pairs.

Two models that read the same documents find the same ones hard: most of a figure's error is the
choice of documents, and is no error of the difference between them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.figures import DIGITS
from components.measure.choices import Item
from components.measure.choosing import Array

Values = dict[str, list[Any]]
"""`ids` of the items, their `sizes` (a figure is a sum of values by a sum of sizes), and the values
of each model."""
NAME = "items.json"
"""The file of a report that holds them, by the name of the figure."""


def document_ids(texts: Sequence[bytes]) -> list[str]:
    return [hashlib.sha256(text).hexdigest()[:16] for text in texts]


def question_ids(questions: Sequence[str]) -> list[str]:
    return document_ids([question.encode("utf-8", "surrogatepass") for question in questions])


def item_ids(items: Sequence[Item]) -> list[str]:
    """Of the question with its choices, and which of them is right."""
    return question_ids([json.dumps([item.question, item.choices, item.answer]) for item in items])


def item_values(ids: Sequence[str], sizes: Array | None, values: Mapping[str, Array]) -> Values:
    """Of one figure; without sizes it is a mean."""
    assert all(len(of_model) == len(ids) for of_model in values.values())
    kept: Values = {
        model: [round(float(value), DIGITS) for value in of_model]
        for model, of_model in values.items()
    }
    all_sizes = [1.0] * len(ids) if sizes is None else [float(size) for size in sizes]
    return {"ids": list(ids), "sizes": all_sizes, **kept}
