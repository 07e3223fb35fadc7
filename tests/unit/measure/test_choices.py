from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from components.errors import DataError
from components.measure.choices import Answer, first_sentence, make_items, read_items
from components.measure.choosing import chat_contexts, choose, title_contexts
from components.tokens import IM_START_ID, START_OF_TEXT_ID
from tests.builders import conversation, write_corpus
from tests.small_models import small_model, small_tokenizer


def answers(*services: str) -> list[Answer]:
    return [
        Answer(str(i), "purpose", service, f"{service}: Op{i}", f"What is Op{i}?", f"It does {i}.")
        for i, service in enumerate(services)
    ]


def test_distractors_come_from_the_same_service_where_it_has_them() -> None:
    items = make_items(answers("A", "A", "A", "A", "B", "B"), 6, seed=1)
    of_a = {"It does 0.", "It does 1.", "It does 2.", "It does 3."}
    assert [item.num_same_service for item in items] == [3, 3, 3, 3, 1, 1]
    for item in items[:4]:
        assert set(item.choices) == of_a
    for item in items[4:]:
        assert {"It does 4.", "It does 5."} <= set(item.choices)


@given(
    services=st.lists(st.sampled_from("ABC"), min_size=4, max_size=12),
    num_items=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_an_item_has_four_different_choices_and_the_right_one_where_it_says(
    services: list[str], num_items: int, seed: int
) -> None:
    given_answers = answers(*services)
    items = make_items(given_answers, num_items, seed)
    assert 0 < len(items) <= num_items
    for item in items:
        assert len(set(item.choices)) == 4
        assert item.choices[item.answer] == given_answers[int(item.id)].description
    assert items == make_items(given_answers, num_items, seed)


def test_equal_descriptions_are_never_two_choices_of_one_item() -> None:
    same = [Answer(str(i), "purpose", "A", "A: Op", "What?", "Lists tags.") for i in range(6)]
    assert make_items(same, 6, seed=1) == []
    items = make_items(same + answers("A", "A", "A"), 9, seed=1)
    assert all(item.choices.count("Lists tags.") <= 1 for item in items)


def test_the_right_answer_stands_everywhere_about_equally_often() -> None:
    items = make_items(answers(*"ABCD" * 100), 400, seed=3)
    places = np.bincount([item.answer for item in items], minlength=4)
    assert places.min() > 70  # 100 expected, 3 standard deviations are 26


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Creates a bucket. It is empty.", "Creates a bucket."),
        ("Needs v1.2 or later. Fails else.", "Needs v1.2 or later."),
        ("Creates a\n  bucket", "Creates a bucket"),
        ("word " * 60, ("word " * 40).strip()),
    ],
)
def test_the_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_items_are_read_from_the_held_out_split_with_their_titles(tmp_path: Path) -> None:
    ids = write_corpus(tmp_path, {"test": [f"text {i}" for i in range(5)]})["test"]
    rows = [
        conversation(name, f"What does Op{i} do?", f"Creates the thing number {i}. More follows.")
        for i, name in enumerate(ids)
    ]
    write_corpus(tmp_path, {"test": [f"text {i}" for i in range(5)]}, {"test": rows})
    items = read_items(tmp_path, "test", ["test"], 3, seed=1)
    assert [item.title for item in items] == ["Document 0", "Document 2", "Document 4"]
    assert items[1].choices[items[1].answer] == "Creates the thing number 2."
    with pytest.raises(DataError, match="too few conversations of other"):
        read_items(tmp_path, "test", ["other"], 3, seed=1)


def test_contexts_end_where_the_choice_begins() -> None:
    tokenizer = small_tokenizer()
    items = make_items(answers(*"AAAA"), 1, seed=0)
    (chat,) = chat_contexts(tokenizer, items)
    assert chat[0] == IM_START_ID
    assert tokenizer.decode(chat) == (
        "<|im_start|>user\nWhat is Op0?<|im_end|>\n<|im_start|>assistant\n"
    )
    (title,) = title_contexts(tokenizer, items)
    assert title[0] == START_OF_TEXT_ID
    assert tokenizer.decode(title[1:]) == "A: Op0\n\n"


def log_probability(model: LlamaForCausalLM, context: list[int], ids: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([context + ids])).logits[0, -len(ids) - 1 : -1]
    return torch.log_softmax(logits, dim=-1)[range(len(ids)), ids].sum().item()


def test_the_likeliest_choice_is_taken() -> None:
    tokenizer, model = small_tokenizer(), small_model()
    items = make_items(answers(*"ABCABCAB"), 8, seed=0)
    contexts = chat_contexts(tokenizer, items)
    found = choose(model, tokenizer, items, contexts)
    for index, item in enumerate(items):
        ids = [tokenizer(c, add_special_tokens=False)["input_ids"] for c in item.choices]
        scores = np.array([log_probability(model, contexts[index], choice) for choice in ids])
        alone = np.array([log_probability(model, [START_OF_TEXT_ID], choice) for choice in ids])
        lengths = np.array([len(choice) for choice in item.choices])
        for taken, table in (
            (found.raw, scores),
            (found.normalised, scores / lengths),
            (found.mutual_information, scores - alone),
        ):
            assert taken[index] == float(table.argmax() == item.answer)
