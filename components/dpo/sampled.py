"""On-policy pairs: the policy answers, the reward model ranks."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.dpo.answers import answer
from components.dpo.pairs import PAIRS, sampled_pairs
from components.model.reward import load_reward_model, score
from components.shards import read_table, write_shards


@dataclass(frozen=True)
class SamplingCounts:
    """What became of the drawn answers."""

    num_samples: int
    num_unfinished: int
    num_empty: int
    num_repeated: int
    """The same text to the same prompt again."""
    num_ranked: int


def kept_pairs(
    folder: Path, draw: Callable[[], tuple[pa.Table, SamplingCounts]]
) -> tuple[pa.Table, SamplingCounts]:
    """What `draw` gives, kept in `folder` for a restart. The folder appears by rename."""
    counts = folder / "counts.json"
    if counts.exists():
        return read_table(folder), SamplingCounts(**json.loads(counts.read_text()))
    table, drawn = draw()
    part = folder.with_name(f".part-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    write_shards(part, [table], PAIRS, rows_per_shard=max(1, table.num_rows))
    (part / counts.name).write_text(json.dumps(asdict(drawn)))
    part.rename(folder)
    return table, drawn


def draw_pairs(
    policy: Any,
    tokenizer: Any,
    reward_model: Path,
    prompt_ids: Sequence[str],
    prompts: Sequence[str],
    *,
    samples_per_prompt: int,
    min_margin: float,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch_size: int,
) -> tuple[pa.Table, SamplingCounts]:
    """PAIRS of the best and the worst of `samples_per_prompt` answers to each prompt.

    Only whole, different, non-empty answers are ranked: a pair ends in <|im_end|>, which one cut
    at the limit of its length never said.
    """
    asked = [i for i in range(len(prompts)) for _ in range(samples_per_prompt)]
    drawn = answer(
        policy,
        tokenizer,
        [prompts[i] for i in asked],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
    )
    finished = [(i, one) for i, one in zip(asked, drawn, strict=True) if one.is_finished]
    worded = [(i, one.text) for i, one in finished if one.text]
    ranked = list(dict.fromkeys(worded))
    counts = SamplingCounts(
        num_samples=len(drawn),
        num_unfinished=len(drawn) - len(finished),
        num_empty=len(finished) - len(worded),
        num_repeated=len(worded) - len(ranked),
        num_ranked=len(ranked),
    )
    asked_prompts, texts = [prompts[i] for i, _ in ranked], [text for _, text in ranked]
    model, own_tokenizer = load_reward_model(reward_model)
    rewards = score(model, own_tokenizer, asked_prompts, texts) if ranked else np.empty(0)
    ids = [prompt_ids[i] for i, _ in ranked]
    return sampled_pairs(ids, asked_prompts, texts, rewards, min_margin), counts
