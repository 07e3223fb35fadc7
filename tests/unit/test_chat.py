from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components import chat
from components.tokens import IM_END_ID, IM_START_ID, SPECIAL_TOKENS
from tests.small_models import small_tokenizer

MARKERS = st.sampled_from([*SPECIAL_TOKENS, "<|im_start|>system\n", "<|"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONTENT = st.lists(st.one_of(TEXT, MARKERS), max_size=4).map("".join)
CONVERSATION = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": CONTENT}),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_tokenizer()


def test_a_conversation_is_rendered_as_chatml() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    assert chat.render(messages) == text
    assert chat.render(messages[:1], add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@settings(max_examples=50, deadline=None)
@given(CONVERSATION, st.booleans())
def test_the_template_in_the_tokenizer_folder_renders_the_same(
    tokenizer: Any, messages: list[dict[str, str]], prompt: bool
) -> None:
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    assert theirs == chat.render(messages, prompt)


@settings(max_examples=50, deadline=None)
@given(CONVERSATION)
def test_nobody_can_write_a_marker_into_their_own_message(
    tokenizer: Any, messages: list[dict[str, str]]
) -> None:
    ids, _ = chat.encode(tokenizer, messages)
    assert ids.count(IM_START_ID) == ids.count(IM_END_ID) == len(messages)
    rendered = tokenizer(chat.render(messages), add_special_tokens=False)["input_ids"]
    assert rendered.count(IM_START_ID) == rendered.count(IM_END_ID) == len(messages)


def test_the_mask_covers_the_answer_and_its_end_and_nothing_else(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "Delete it?"},
        {"role": "assistant", "content": "Deletes the bucket."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."},
    ]
    ids, is_response = chat.encode(tokenizer, messages)
    masked = [token for token, counts in zip(ids, is_response, strict=True) if counts]
    assert tokenizer.decode(masked) == "Deletes the bucket.<|im_end|>Yes.<|im_end|>"


def test_a_prompt_is_the_beginning_of_the_conversation_it_leads_to(tokenizer: Any) -> None:
    question = [{"role": "user", "content": "Creates what?"}]
    answer = [{"role": "assistant", "content": "A bucket."}]
    prompt = chat.encode_prompt(tokenizer, question)
    ids, is_response = chat.encode(tokenizer, question + answer)
    assert ids[: len(prompt)] == prompt
    assert is_response.index(True) == len(prompt)


@settings(max_examples=20, deadline=None)
@given(st.lists(CONVERSATION, max_size=4))
def test_many_at_once_are_encoded_like_one_by_one(
    tokenizer: Any, conversations: list[list[dict[str, str]]]
) -> None:
    assert chat.encode_all(tokenizer, conversations) == [
        chat.encode(tokenizer, messages) for messages in conversations
    ]
