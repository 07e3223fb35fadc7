from dataclasses import replace

import numpy as np

from components.evaluate.items import document_ids, item_ids, item_values, question_ids
from components.measure.choices import Item

ITEM = Item("a", "A", "What does A do?", ("this", "that"), 0, 1)


def test_a_figure_is_the_sum_of_its_values_by_the_sum_of_its_sizes() -> None:
    bits, num_bytes = np.array([3.00000049, 9.0]), np.array([2, 4])
    assert item_values(["x", "y"], num_bytes, {"dpo": bits}) == {
        "ids": ["x", "y"], "sizes": [2.0, 4.0], "dpo": [3.0, 9.0],
    }  # fmt: skip
    assert item_values(["x", "y"], None, {"dpo": bits})["sizes"] == [1.0, 1.0]


def test_items_are_the_same_by_what_a_model_reads_and_what_is_right() -> None:
    others = (
        replace(ITEM, question="?"),
        replace(ITEM, choices=("that", "this")),
        replace(ITEM, answer=1),
    )
    assert len(set(item_ids([ITEM, *others]))) == 4
    assert item_ids([replace(ITEM, id="b", num_same_service=0)]) == item_ids([ITEM])
    assert document_ids([b"A", b"A "]) == question_ids(["A", "A "])
    assert len({*question_ids(["A", "A ", "\ud800"])}) == 3
