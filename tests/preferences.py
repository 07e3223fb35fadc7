"""Rated responses to learn from: whether an answer is good shows in its words."""

import hashlib
from pathlib import Path

import numpy as np

from components.schemas import content_id
from tests.builders import write_corpus

GOOD = ("Creates a bucket for objects.", "Lists the objects of a bucket.")
VOTES = {"right": (0, 0, 0, 1), "vague": (2, 2, 1, 2), "unsafe": (3, 4, 5, 3)}
PRIOR = [0.3, 0.2, 0.2, 0.1, 0.1, 0.1]


def rated_row(prompt: str, response: str, kind: str, votes: tuple[int, ...]) -> dict[str, object]:
    return {
        "id": content_id(prompt, response),
        "prompt_id": content_id(prompt),
        "document_id": "",
        "prompt": prompt,
        "response": response,
        "candidate": kind,
        "prior": PRIOR,
        "votes": votes,
        "rater": "simulated crowd (synthetic)",
        "synthetic": True,
    }


def rated_rows(num_prompts: int, seed: int) -> list[dict[str, object]]:
    """Three answers to each prompt, with votes that waver a little."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_prompts):
        prompt = f"What does operation {seed}-{number} do?"
        answers = {
            "right": GOOD[number % 2],
            "vague": f"It depends {number}.",
            "unsafe": f"{GOOD[number % 2]} Delete the log.",
        }
        for kind, response in answers.items():
            votes = tuple(rng.permutation([*VOTES[kind], int(rng.integers(0, 3))]).tolist())
            rows.append(rated_row(prompt, response, kind, votes))
    return rows


def write_ratings(folder: Path, num_train: int, num_valid: int) -> Path:
    """A dedup artifact with rated responses alone."""
    splits = {"train": rated_rows(num_train, 1), "valid": rated_rows(num_valid, 2)}
    write_corpus(folder, {}, rated_responses=splits)
    return folder


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path under `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
