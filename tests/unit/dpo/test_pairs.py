import numpy as np

from components.dpo.pairs import rated_pairs, sampled_pairs
from components.preference.ratings import Ratings


def ratings(rewards: dict[str, list[float]]) -> Ratings:
    """Answers whose target has just these expected rewards: a mix of types 1 and 6."""
    ids = [name for name, values in rewards.items() for _ in values]
    flat = np.array([value for values in rewards.values() for value in values])
    first = (flat + 3) / 4
    targets = np.zeros((len(flat), 6))
    targets[:, 0], targets[:, 5] = first, 1 - first
    return Ratings(
        ids=[str(i) for i in range(len(flat))],
        prompt_ids=ids,
        prompts=[f"prompt {name}" for name in ids],
        responses=[f"answer {i}" for i in range(len(flat))],
        candidates=["right"] * len(flat),
        counts=targets,
        targets=targets,
        raters=("simulated crowd (synthetic)",),
    )


def test_rated_pairs_have_the_margin_and_stay_within_a_prompt() -> None:
    table = rated_pairs(ratings({"a": [1.0, 0.0, 0.75], "b": [-1.0, 0.5]}), 0.5, 10, 10, seed=0)
    rows = [(row["chosen"], row["rejected"]) for row in table.to_pylist()]
    assert rows == [("answer 0", "answer 1"), ("answer 2", "answer 1"), ("answer 4", "answer 3")]
    assert set(table["origin"].to_pylist()) == {"rated"}
    assert set(table["judge"].to_pylist()) == {"simulated crowd (synthetic)"}
    margins = np.subtract(table["chosen_reward"], table["rejected_reward"])
    np.testing.assert_allclose(margins, [1.0, 0.75, 1.5])


def test_of_a_prompt_so_many_pairs_are_drawn_by_the_seed() -> None:
    many = ratings({name: [0.9, 0.1, -1.0, -2.0] for name in "abcdefgh"})
    tables = [rated_pairs(many, 0.5, 8, 2, seed=seed) for seed in (0, 0, 1)]
    assert all(table.num_rows == 16 for table in tables)
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert rated_pairs(many, 0.5, 3, 2, seed=0).num_rows == 6
    assert rated_pairs(many, 0.5, 0, 2, seed=0).num_rows == 0


def test_the_best_and_the_worst_sample_make_a_pair_if_far_enough_apart() -> None:
    prompt_ids = ["a", "a", "a", "b", "b", "c"]
    rewards = np.array([0.1, 0.9, -0.5, 0.3, 0.2, 1.0])
    texts = list("uvwxyz")
    table = sampled_pairs(prompt_ids, prompt_ids, texts, rewards, 0.2)
    (row,) = table.to_pylist()
    assert (row["chosen"], row["rejected"]) == ("v", "w")
    assert (row["origin"], row["judge"]) == ("sampled", "reward model")
    assert sampled_pairs(prompt_ids, prompt_ids, texts, rewards, 0.05).num_rows == 2


def test_equal_samples_make_no_pair_even_without_a_margin() -> None:
    assert sampled_pairs(["a", "a"], ["p", "p"], ["x", "y"], np.zeros(2), 0.0).num_rows == 0
