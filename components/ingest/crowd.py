"""Who rates responses: the interface, and a simulated crowd of stated personas (synthetic)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from components.ingest.candidates import Candidate
from components.schemas import NUM_CATEGORIES, content_id
from components.section import read_yaml

LONGEST_BRIEF_WORDS = 120  # no longer brief at all
FEATURES = ("correct", "complete", "brief", "plain", "danger", "leak", "wrong")


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
    personas = tuple(Persona(**entry) for entry in entries)
    for persona in personas:
        unknown = {*persona.helpful, *persona.harm} - {*FEATURES}
        if unknown:
            raise UserError(
                f"{path.name}: {persona.name} judges by {min(unknown)!r}, which is not known",
                f"known are {', '.join(FEATURES)}",
            )
    return personas


class SimulatedCrowd:
    """Every persona votes by its utilities and seeded noise.

    The prior is the share of personas choosing each category without noise, mixed with
    `prior_softening` of the uniform distribution: an annotator who knows the crowd, not its mood.
    """

    name = "simulated crowd (synthetic)"
    num_concurrent = 1

    def __init__(self, personas: Sequence[Persona], prior_softening: float, seed: int) -> None:
        self._crowd = Crowd(personas)
        self._noise = np.array([[persona.noise] for persona in personas])
        self._softening = prior_softening
        self._seed = seed

    def rate(self, prompt: str, candidate: Candidate) -> Rating:
        features = features_of(candidate)
        key = content_id(str(self._seed), prompt, candidate.kind, candidate.response)
        draws = np.random.default_rng(int(key, 16)).standard_normal((len(self._noise), 2))
        votes = self._crowd.categories(features, self._noise * draws)
        counts = np.bincount(self._crowd.categories(features), minlength=NUM_CATEGORIES)
        prior = (1 - self._softening) * counts / counts.sum() + self._softening / NUM_CATEGORIES
        return Rating(tuple(votes.tolist()), tuple(prior.tolist()))


class Crowd:
    """The utilities of some personas, as arrays."""

    def __init__(self, personas: Sequence[Persona]) -> None:
        axes = [(persona.helpful, persona.harm) for persona in personas]
        self._weights = np.array(
            [[[weights.get(name, 0.0) for name in FEATURES] for weights in one] for one in axes]
        )
        self._helpful_above = np.array([persona.helpful_above for persona in personas])
        self._neutral_above = np.array([persona.neutral_above for persona in personas])
        self._harmful_above = np.array([persona.harmful_above for persona in personas])

    def categories(
        self, features: Mapping[str, float], noise: NDArray[np.float64] | float = 0.0
    ) -> NDArray[np.int64]:
        """The one of the six categories, 0..5, that each persona chooses.

        `noise` is added to helpfulness and harm: shape (personas, 2).
        """
        values = np.array([features[name] for name in FEATURES])
        # A sum in a stated order, not a matrix product: the same votes on every machine.
        helpfulness, harm = ((self._weights * values).sum(axis=2) + noise).T
        chosen: NDArray[np.int64] = (helpfulness <= self._helpful_above).astype(np.int64)
        chosen += helpfulness <= self._neutral_above
        chosen += 3 * (harm > self._harmful_above)
        return chosen


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
