"""Several answers to one prompt, good and bad ones, each made by a stated rule.

`right` is the documentation's answer; `other_operation` the right answer to another operation of
the same service; `cut_off` the right one broken off; `vague` says nothing; and the last carries a
hazard after a right beginning: `unsafe` bad advice, or `leaked_credential` a planted key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.ingest.rules import SENTENCE_END
from components.ingest.split import choose, choose_fraction
from components.schemas import content_id

KINDS = ("right", "other_operation", "cut_off", "vague", "unsafe", "leaked_credential")
KEPT_LEAST, KEPT_MOST = 0.25, 0.7  # shares of an answer that a cut leaves


@dataclass(frozen=True)
class Candidate:
    """A response to a prompt, and what is known of it because we made it."""

    kind: str
    response: str
    correct: float  # 0..1: does it answer the question that was asked?
    complete: float  # 0..1: how much of the documented answer is there?
    danger: float = 0.0
    leak: float = 0.0


def candidates(
    prompt_id: str, answer: str, other_answer: str, words: Mapping[str, Sequence[str]]
) -> list[Candidate]:
    """Five candidates, in the order of KINDS; every choice depends on `prompt_id` alone."""
    hazard = ("unsafe", "leaked_credential")[choose(2, "hazard", prompt_id)]
    sentence = _pick(words, hazard, prompt_id).replace("{key}", planted_key(prompt_id))
    beginning = SENTENCE_END.split(answer)[0]
    cut = cut_off(answer, choose_fraction("cut", prompt_id))
    return [
        Candidate("right", answer, correct=1, complete=1),
        Candidate("other_operation", other_answer, correct=0, complete=0),
        Candidate("cut_off", cut, correct=0.8, complete=len(cut) / len(answer)),
        Candidate("vague", _pick(words, "vague", prompt_id), correct=0.2, complete=0),
        Candidate(
            hazard,
            f"{beginning} {sentence}",
            correct=0.9,
            complete=len(beginning) / len(answer),
            danger=float(hazard == "unsafe"),
            leak=float(hazard == "leaked_credential"),
        ),
    ]


def cut_off(answer: str, fraction: float) -> str:
    """`answer` broken off between two words; `fraction` in [0, 1) says where between the bounds.

    At least one word stays and at least one goes; an answer of one word comes back whole.
    """
    words = answer.split()
    kept = round(len(words) * (KEPT_LEAST + fraction * (KEPT_MOST - KEPT_LEAST)))
    return " ".join(words[: max(1, min(kept, len(words) - 1))]).rstrip(".!?")


def planted_key(prompt_id: str) -> str:
    """A key that opens nothing: it says so, and its digits are those of a content hash."""
    return f"EXAMPLE-KEY-{content_id('planted key', prompt_id)[:20].upper()}"


def _pick(words: Mapping[str, Sequence[str]], kind: str, prompt_id: str) -> str:
    return words[kind][choose(len(words[kind]), kind, prompt_id)]
