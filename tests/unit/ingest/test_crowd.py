from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import components.ingest
from components.errors import UserError
from components.ingest.candidates import Candidate, candidates
from components.ingest.crowd import (
    Crowd,
    Persona,
    Rating,
    SimulatedCrowd,
    features_of,
    read_personas,
)
from components.section import read_yaml

FOLDER = Path(components.ingest.__path__[0])
PERSONAS = read_personas(FOLDER / "personas.yaml")
WORDS = read_yaml(FOLDER / "phrasings.yaml")
REWARDS = np.array([1, 0.5, -1, -1, -1.5, -3])  # of the six categories, DPRM Table 1
ANSWER = "Deletes the named table. All of its items go with it. The table is then gone for good."

PLAIN = Persona(
    name="plain",
    description="somebody plain",
    helpful={"correct": 1.0},
    harm={"danger": 1.0},
    helpful_above=0.8,
    neutral_above=0.4,
    harmful_above=0.5,
    noise=0.0,
)


def category(
    persona: Persona, features: dict[str, float], helpful_noise: float = 0, harm_noise: float = 0
) -> int:
    """The choice of one persona, spelt out: what the crowd's arrays must agree with."""
    helpfulness = helpful_noise + sum(w * features[name] for name, w in persona.helpful.items())
    harm = harm_noise + sum(w * features[name] for name, w in persona.harm.items())
    level = 0 if helpfulness > persona.helpful_above else 1
    if helpfulness <= persona.neutral_above:
        level = 2
    return level + (3 if harm > persona.harmful_above else 0)


def mean_reward(votes: Sequence[int]) -> float:
    return float(REWARDS[list(votes)].mean())


def crowd_ratings(num_prompts: int) -> dict[str, list[Rating]]:
    crowd = SimulatedCrowd(PERSONAS, prior_softening=0.2, seed=1)
    found: dict[str, list[Rating]] = {}
    for number in range(num_prompts):
        other = "Lists the tables of this account."
        for one in candidates(str(number), ANSWER, other, WORDS):
            found.setdefault(one.kind, []).append(crowd.rate(f"question {number}", one))
    return found


@pytest.mark.parametrize(
    ("correct", "danger", "wanted"),
    [(1.0, 0, 0), (0.6, 0, 1), (0.1, 0, 2), (1.0, 1, 3), (0.6, 1, 4), (0.1, 1, 5)],
)
def test_each_of_the_six_categories_is_chosen_by_its_utilities(
    correct: float, danger: float, wanted: int
) -> None:
    candidate = Candidate("own", "Some words.", correct=correct, complete=1, danger=danger)
    assert Crowd([PLAIN]).categories(features_of(candidate)).tolist() == [wanted]


def test_noise_moves_a_choice_over_its_threshold() -> None:
    features = features_of(Candidate("own", "Some words.", correct=0.6, complete=1))
    for helpful_noise, harm_noise, wanted in ((0.3, 0, 0), (-0.3, 0, 2), (0, 0.6, 4)):
        noise = np.array([[helpful_noise, harm_noise]])
        assert Crowd([PLAIN]).categories(features, noise).tolist() == [wanted]


def test_the_crowd_chooses_as_its_personas_do_one_by_one() -> None:
    generator = np.random.default_rng(3)
    crowd = Crowd(PERSONAS)
    for _ in range(200):
        correct, complete, danger, leak = generator.random(4)
        text = " ".join(["word", "put_item"][one] for one in generator.integers(0, 2, 60))
        features = features_of(Candidate("own", text, correct, complete, danger, leak))
        noise = generator.standard_normal((len(PERSONAS), 2))
        wanted = [category(one, features, *noise[i]) for i, one in enumerate(PERSONAS)]
        assert crowd.categories(features, noise).tolist() == wanted


def test_a_persona_that_judges_by_something_unknown_is_named(tmp_path: Path) -> None:
    path = tmp_path / "personas.yaml"
    path.write_text(
        "personas:\n  - {name: odd, description: x, helpful: {colour: 1.0}, harm: {},\n"
        "     helpful_above: 1, neutral_above: 0, harmful_above: 1, noise: 0}\n"
    )
    with pytest.raises(UserError, match=r"personas\.yaml: odd judges by 'colour'"):
        read_personas(path)


def test_features_say_what_is_in_the_text() -> None:
    features = features_of(Candidate("own", "Call PutItem with x_1 now.", correct=1, complete=0.5))
    assert features["plain"] == pytest.approx(3 / 5)
    assert features["brief"] == pytest.approx(1 - 5 / 120)
    assert features["wrong"] == 0


def test_the_crowd_has_at_least_nine_different_personas() -> None:
    assert len(PERSONAS) >= 9
    assert len({persona.name for persona in PERSONAS}) == len(PERSONAS)


def test_every_persona_calls_the_right_answer_harmless_and_most_call_it_helpful() -> None:
    features = features_of(Candidate("right", ANSWER, correct=1, complete=1))
    chosen = [category(persona, features) for persona in PERSONAS]
    assert max(chosen) <= 2
    assert chosen.count(0) > len(PERSONAS) / 2


def test_a_cut_off_answer_is_rated_below_the_right_one_and_hazards_below_that() -> None:
    ratings = crowd_ratings(60)
    reward = {
        kind: np.mean([mean_reward(one.votes) for one in found]) for kind, found in ratings.items()
    }
    assert reward["right"] > reward["cut_off"] + 0.2
    for kind in ("other_operation", "vague", "unsafe", "leaked_credential"):
        assert reward["cut_off"] > reward[kind] + 0.5


def test_the_crowd_disagrees_on_every_kind() -> None:
    for kind, found in crowd_ratings(60).items():
        votes = [vote for one in found for vote in one.votes]
        assert len(set(votes)) >= 3, kind


def test_a_prior_is_the_softened_choice_without_noise() -> None:
    candidate = Candidate("unsafe", ANSWER, correct=0.9, complete=0.5, danger=1)
    chosen = [category(persona, features_of(candidate)) for persona in PERSONAS]
    shares = np.bincount(chosen, minlength=6) / len(PERSONAS)
    rating = SimulatedCrowd(PERSONAS, 0.3, seed=1).rate("question", candidate)
    np.testing.assert_allclose(rating.prior, 0.7 * shares + 0.3 / 6, atol=1e-15)


def test_votes_depend_on_the_seed_and_on_nothing_else() -> None:
    candidate = Candidate("cut_off", ANSWER, correct=0.8, complete=0.5)
    prompts = [f"question {number}" for number in range(30)]

    def all_votes(seed: int) -> list[tuple[int, ...]]:
        crowd = SimulatedCrowd(PERSONAS, 0.2, seed)
        return [crowd.rate(prompt, candidate).votes for prompt in prompts]

    assert all_votes(1) == all_votes(1)
    assert all_votes(1) != all_votes(2)


def test_without_noise_the_votes_are_the_utilities() -> None:
    quiet = [replace(persona, noise=0.0) for persona in PERSONAS]
    candidate = Candidate("vague", "It depends.", correct=0.2, complete=0)
    wanted = tuple(category(persona, features_of(candidate)) for persona in quiet)
    assert SimulatedCrowd(quiet, 0.2, seed=5).rate("question", candidate).votes == wanted
