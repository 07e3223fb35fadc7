from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from components.errors import UserError
from components.model.generate import choose_tokens, sample
from components.tokens import END_OF_TEXT_ID, IM_END_ID
from tests.small_models import small_model, small_tokenizer

PROMPTS = [[6, 20, 21], [6, 30, 31, 32, 33, 34], [6], [6, 40, 41, 42]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_tokenizer()


def draw(model: Any, tokenizer: Any, prompts: list[list[int]], **changes: Any) -> list[list[int]]:
    settings = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 1.0, "seed": 3, "batch_size": 8}
    return sample(model, tokenizer, prompts, **(settings | changes))


def eager_to_stop(model: Any) -> Any:
    """Makes <|im_end|> likely now and then, so that rows end at different times."""
    with torch.no_grad():
        model.lm_head.weight *= 8
    return model


def test_greedy_answers_are_those_of_transformers_generate(tokenizer: Any) -> None:
    model = eager_to_stop(small_model().eval())
    for prompt, got in zip(PROMPTS, draw(model, tokenizer, PROMPTS, temperature=0.0), strict=True):
        want = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=[IM_END_ID, END_OF_TEXT_ID],
            pad_token_id=0,
        )
        assert got == want[0, len(prompt) :].tolist()


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_rows_draws_do_not_depend_on_its_neighbours(tokenizer: Any, top_p: float) -> None:
    model = eager_to_stop(small_model().eval())
    together = draw(model, tokenizer, PROMPTS, top_p=top_p)
    assert together == draw(model, tokenizer, PROMPTS, top_p=top_p, batch_size=1)
    assert together[:2] == draw(model, tokenizer, PROMPTS[:2], top_p=top_p)
    assert together != draw(model, tokenizer, PROMPTS, top_p=top_p, seed=4)


def test_an_answer_ends_with_its_stop_token_or_at_the_limit(tokenizer: Any) -> None:
    model = small_model().eval()
    stops = {IM_END_ID, END_OF_TEXT_ID}
    answers = draw(model, tokenizer, PROMPTS * 50, max_new_tokens=40, batch_size=200)
    ended = [answer for answer in answers if answer[-1] in stops]
    assert ended
    assert any(len(answer) == 40 and answer[-1] not in stops for answer in answers)
    for answer in answers:
        assert not stops & set(answer[:-1])
        assert answer[-1] in stops or len(answer) == 40


def test_sampling_leaves_the_global_random_state_alone(tokenizer: Any) -> None:
    model = small_model().eval()
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    draw(model, tokenizer, PROMPTS)
    assert torch.rand(1) == want


def test_tokens_are_drawn_with_their_probability() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(20000, 4)
    draws = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 0.5):
        drawn = choose_tokens(logits, draws, temperature=temperature, top_p=1.0)
        want = torch.softmax(logits[0].double() / temperature, dim=0).numpy() * 20000
        assert chisquare(np.bincount(drawn, minlength=4), want).pvalue > 1e-3


def test_the_nucleus_is_the_smallest_set_with_the_probability_asked_for() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(5000, 4)
    draws = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    for top_p, want in ((0.45, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        assert set(choose_tokens(logits, draws, temperature=1.0, top_p=top_p).tolist()) == want


def test_an_impossible_token_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(3, 3)
    draws = torch.tensor([0.0, 0.5, 1.0 - 2**-24])
    assert choose_tokens(logits, draws, temperature=1.0, top_p=1.0).tolist() == [1, 1, 1]


def test_a_prompt_too_long_for_the_context_is_named(tokenizer: Any) -> None:
    model = small_model().eval()
    context = model.config.max_position_embeddings
    with pytest.raises(UserError, match=f"context of {context}"):
        draw(model, tokenizer, [[6] * (context - 5)])
