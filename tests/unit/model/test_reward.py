from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.errors import DataError
from components.model.reward import (
    RewardModel,
    head_outputs,
    load_reward_model,
    predict_distributions,
    save_reward_model,
    score,
)
from components.model.rows import encode_responses
from components.preference.crowd import REWARDS
from components.train.responses import packed_batch
from tests.small_models import small_model, small_tokenizer

PROMPTS = ["What?", "Why is it so?", "What?"]
RESPONSES = ["That.", "Because of this and that.", "Nothing."]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_tokenizer()


def reward_model(num_outputs: int = 6) -> RewardModel:
    language_model: Any = small_model()
    model = RewardModel(language_model.model, num_outputs).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(model.head.weight)
    return model


def test_the_reward_is_read_at_the_answers_last_token(tokenizer: Any) -> None:
    model = reward_model()
    rows = encode_responses(tokenizer, PROMPTS, RESPONSES)
    with torch.no_grad():
        want = torch.cat(
            [
                model.head(model.model(input_ids=torch.tensor([row.ids])).last_hidden_state[:, -1])
                for row in rows
            ]
        )
        packed = model(packed_batch(rows, 64))
    torch.testing.assert_close(packed, want, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(head_outputs(model, rows), want.numpy(), atol=1e-5)


def test_the_score_is_the_expected_reward_of_the_predicted_distribution(tokenizer: Any) -> None:
    model = reward_model()
    predicted = predict_distributions(model, encode_responses(tokenizer, PROMPTS, RESPONSES))
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0)
    want = [sum(p * r for p, r in zip(row, REWARDS, strict=True)) for row in predicted]
    np.testing.assert_allclose(score(model, tokenizer, PROMPTS, RESPONSES), want)


def test_an_untrained_head_says_its_bias_of_every_answer(tokenizer: Any) -> None:
    language_model: Any = small_model()
    model = RewardModel(language_model.model, 1).eval()
    assert score(model, tokenizer, PROMPTS, RESPONSES).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("num_outputs", [6, 1])
def test_a_saved_model_gives_the_same_scores(
    tokenizer: Any, tmp_path: Path, num_outputs: int
) -> None:
    model = reward_model(num_outputs)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    save_reward_model(model, tmp_path / "tokenizer", tmp_path / "model")
    loaded, own_tokenizer = load_reward_model(tmp_path / "model")
    np.testing.assert_array_equal(
        score(loaded, own_tokenizer, PROMPTS, RESPONSES),
        score(model, tokenizer, PROMPTS, RESPONSES),
    )


@pytest.mark.parametrize("damage", ["truncate", "remove", "other head"])
def test_a_damaged_model_is_named(tokenizer: Any, tmp_path: Path, damage: str) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    folder = tmp_path / "model"
    save_reward_model(reward_model(), tmp_path / "tokenizer", folder)
    weights = folder / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "remove":
        weights.unlink()
    else:
        (folder / "head.json").write_text('{"num_outputs": 1}')
    with pytest.raises(DataError, match="not a whole reward model"):
        load_reward_model(folder)
