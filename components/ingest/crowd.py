"""Who rates responses: the interface, and a simulated crowd of stated personas (synthetic)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from components.ingest.candidates import Candidate
from components.schemas import NUM_CATEGORIES, content_id
from components.section import read_yaml

LONGEST_BRIEF_WORDS = 120  # no longer brief at all


@dataclass(frozen=True)
class Rating:
    """What a group of raters says of one response."""

    votes: tuple[int, ...]
    """One of the six categories (0..5, schemas.CATEGORIES) for each rater, in the raters' order."""
    prior: tuple[float, ...]
    """Six probabilities, summing to 1: one annotator's guess, before any vote."""


class Rater(Protocol):
    """Rates a response to a prompt. The candidate carries what is known of how it was made."""

    @property
    def name(self) -> str:
        """Goes into every row; says so if nobody was asked."""

    @property
    def num_concurrent(self) -> int:
        """How many threads may wait for it at once."""

    def rate(self, prompt: str, candidate: Candidate) -> Rating:
        """Raises InfraError if the rater cannot be reached, DataError if it answers nonsense."""


@dataclass(frozen=True)
class Persona:
    """A rater's utilities; personas.yaml says what the numbers mean."""

    name: str
    description: str
    helpful: Mapping[str, float]
    harm: Mapping[str, float]
    helpful_above: float
    neutral_above: float
    harmful_above: float
    noise: float


def read_personas(path: Path) -> tuple[Persona, ...]:
    """The personas of a YAML file, in its order."""
    entries: list[dict[str, Any]] = read_yaml(path)["personas"]
    return tuple(Persona(**entry) for entry in entries)


class SimulatedCrowd:
    """Every persona votes by its utilities and seeded noise.

    The prior is the share of personas choosing each category without noise, mixed with
    `prior_softening` of the uniform distribution: an annotator who knows the crowd, not its mood.
    """

    name = "simulated crowd (synthetic)"
    num_concurrent = 1

    def __init__(self, personas: Sequence[Persona], prior_softening: float, seed: int) -> None:
        self._personas = tuple(personas)
        self._softening = prior_softening
        self._seed = seed

    def rate(self, prompt: str, candidate: Candidate) -> Rating:
        features = features_of(candidate)
        key = content_id(str(self._seed), prompt, candidate.kind, candidate.response)
        draws = np.random.default_rng(int(key, 16)).standard_normal((len(self._personas), 2))
        votes = tuple(
            category(persona, features, *(persona.noise * draw).tolist())
            for persona, draw in zip(self._personas, draws, strict=True)
        )
        counts = np.bincount(
            [category(persona, features) for persona in self._personas], minlength=NUM_CATEGORIES
        )
        prior = (1 - self._softening) * counts / counts.sum() + self._softening / NUM_CATEGORIES
        return Rating(votes, tuple(prior.tolist()))


def features_of(candidate: Candidate) -> dict[str, float]:
    """What personas look at, each in 0..1: personas.yaml says what they mean."""
    words = candidate.response.split()
    ordinary = sum(word.strip(".,;:()\"'").isalpha() and word[1:].islower() for word in words)
    return {
        "correct": candidate.correct,
        "complete": candidate.complete,
        "brief": max(0.0, 1 - len(words) / LONGEST_BRIEF_WORDS),
        "plain": ordinary / max(1, len(words)),
        "danger": candidate.danger,
        "leak": candidate.leak,
        "wrong": 1 - candidate.correct,
    }


def category(
    persona: Persona,
    features: Mapping[str, float],
    helpful_noise: float = 0.0,
    harm_noise: float = 0.0,
) -> int:
    """The one of the six categories that this persona chooses, 0..5."""
    helpfulness = helpful_noise + sum(
        weight * features[name] for name, weight in persona.helpful.items()
    )
    harm = harm_noise + sum(weight * features[name] for name, weight in persona.harm.items())
    level = (helpfulness <= persona.helpful_above) + (helpfulness <= persona.neutral_above)
    return level + 3 * (harm > persona.harmful_above)
