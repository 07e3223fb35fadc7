"""ChatML: how a conversation becomes text, and token ids with a mask over the answers.

    <|im_start|>{role}\n{content}<|im_end|>\n        for each message
    <|im_start|>assistant\n                          where the model is to go on

A marker inside a message's content is never a marker: `encode` takes content as plain text, and
rendered text, whose reader cannot know, has its `<|` opened to `< |`. Nobody can end a turn or
begin a system message from within their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.tokens import IM_END_ID, IM_START_ID

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content`."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | replace('<|', '< |')"
    " + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The same as `render`, for transformers, vLLM and other readers of a tokenizer folder."""


def render(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """The conversation as ChatML text; equals `tokenizer.apply_chat_template(tokenize=False)`."""
    turns = [
        f"<|im_start|>{message['role']}\n{message['content'].replace('<|', '< |')}<|im_end|>\n"
        for message in messages
    ]
    return "".join(turns) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def encode(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and for each whether it belongs to an answer.

    An answer is an assistant's content and its <|im_end|>; the newline that follows is not. A
    model trained on the masked tokens alone learns to answer and to stop.
    """
    return encode_all(tokenizer, [messages])[0]


def encode_all(
    tokenizer: Any, conversations: Sequence[Sequence[Message]]
) -> list[tuple[list[int], list[bool]]]:
    """`encode` for many at once: one call of the tokenizer, which uses all its threads."""
    contents = [message["content"] for messages in conversations for message in messages]
    bodies = iter(encode_texts(tokenizer, contents))
    roles = sorted({message["role"] for messages in conversations for message in messages})
    names = encode_texts(tokenizer, [f"{role}\n" for role in roles] + ["\n"])
    heads = {role: [IM_START_ID, *ids] for role, ids in zip(roles, names, strict=False)}
    newline = names[-1]
    encoded = []
    for messages in conversations:
        ids: list[int] = []
        is_response: list[bool] = []
        for message in messages:
            head, body = heads[message["role"]], [*next(bodies), IM_END_ID]
            answers = message["role"] == "assistant"
            ids += head + body + newline
            is_response += [False] * len(head) + [answers] * len(body) + [False] * len(newline)
        encoded.append((ids, is_response))
    return encoded


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids that end in `<|im_start|>assistant\\n`: the model goes on with its answer."""
    (turn,) = encode_texts(tokenizer, ["assistant\n"])
    return [*encode(tokenizer, messages)[0], IM_START_ID, *turn]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """One plain text to ids; see `encode_texts`."""
    return encode_texts(tokenizer, [text])[0]


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Plain texts to ids; what looks like a special token in them stays text."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
    )["input_ids"]
    return ids
