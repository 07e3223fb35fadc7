"""Correction line by line: the rules of C4 and RefinedWeb.

C4: Raffel et al. 2020 (arXiv 1910.10683) 2.2, as datatrove's C4QualityFilter reads it.
RefinedWeb: Penedo et al. 2023 (arXiv 2306.01116) G.2.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
TERMINAL_PUNCTUATION = (".", "?", "!", '"', "'")
POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
COUNTER = re.compile(
    r"\W*\d[\d.,]*\s*[km]?\+?\s+"
    r"(?:likes?|shares?|comments?|repl(?:y|ies)|views?|votes?|followers?|retweets?|stars?)\W*",
    re.IGNORECASE,
)
CALL_PHRASES = (
    *("sign in", "sign-in", "sign up", "sign-up", "log in", "skip to", "subscribe"),
    *("read more", "learn more", "share this"),
    *("items in cart", "add to cart", "all rights reserved", "back to top"),
)
CALL = re.compile(
    r"^\W*(?:sign[ -](?:in|up)|log in|skip to|subscribe)\b"
    r"|\b(?:read more|learn more|share this)\W*$"
    r"|\b(?:items in cart|add to cart|all rights reserved|back to top)\b"
)

# What a text must contain for a rule to do anything; a rule that is not here always looks.
PHRASES_OF_RULE = {
    "javascript": ("javascript",),
    "policy": POLICY_PHRASES,
    "call_to_action": CALL_PHRASES,
    "citation": ("[",),
}


@dataclass(frozen=True)
class Correction:
    """A text after its lines were judged."""

    text: str
    num_removed_words: int
    num_lorem_ipsum_lines: int
    num_curly_bracket_lines: int
    removed_lines: Counter[str]
    """Number of lines removed, by rule."""


def normalise_lines(text: str) -> str:
    """Every line break becomes `\\n`; no white space at a line's end nor at the text's."""
    return "\n".join([line.rstrip() for line in text.splitlines()]).strip()


def correct_lines(
    text: str,
    rules: Sequence[str],
    *,
    min_words: int,
    max_word_chars: int,
    max_upper_case_fraction: float,
    max_call_words: int,
) -> Correction:
    """Remove the lines that fail a rule and the Wikipedia-style citation marks.

    The order is C4's as datatrove has it, for its two document rules count lines on the way:
    "lorem ipsum" in lines that are long, whole and clean enough, and "{" in those of them that do
    not mention JavaScript. A blank line has no word, so `few_words` removes it too.
    """
    lowered = text.lower()
    active = {
        rule
        for rule in rules
        if rule not in PHRASES_OF_RULE or any(part in lowered for part in PHRASES_OF_RULE[rule])
    }
    if max(map(len, text.split("\n"))) <= max_word_chars:
        active.discard("long_word")
    if not active:
        num_lorem = sum("lorem ipsum" in line for line in lowered.split("\n"))
        num_curly = sum("{" in line for line in text.split("\n"))
        return Correction(text, 0, num_lorem, num_curly, Counter())
    kept: list[str] = []
    removed: Counter[str] = Counter()
    num_removed_words = num_lorem = num_curly = 0
    for original in text.split("\n"):
        words = original.split()
        line = original
        failed = ""
        if "long_word" in active and any(len(word) > max_word_chars for word in words):
            failed = "long_word"
        else:
            if "citation" in active:
                line = CITATION.sub("", original)
            if "no_terminal_punctuation" in active and not _ends_a_sentence(line):
                failed = "no_terminal_punctuation"
            elif "few_words" in active and len(words) < min_words:
                failed = "few_words"
        if not failed:
            lower = line.lower()
            num_lorem += "lorem ipsum" in lower
            if "javascript" in active and "javascript" in lower:
                failed = "javascript"
            else:
                num_curly += "{" in line
                if "policy" in active and any(phrase in lower for phrase in POLICY_PHRASES):
                    failed = "policy"
                elif words:
                    failed = _refined_web_rule(
                        line, lower, len(words), active, max_upper_case_fraction, max_call_words
                    )
        if failed:
            removed[failed] += 1
            num_removed_words += len(words)
        else:
            kept.append(line)
    return Correction("\n".join(kept).strip(), num_removed_words, num_lorem, num_curly, removed)


def _ends_a_sentence(line: str) -> bool:
    return line.endswith(TERMINAL_PUNCTUATION) and not line.endswith("...")


def _refined_web_rule(
    line: str,
    lower: str,
    num_words: int,
    active: set[str],
    max_upper_case_fraction: float,
    max_call_words: int,
) -> str:
    """The first of RefinedWeb's rules that the line fails; empty if none."""
    if "number" in active and not any(char.isalpha() for char in line) and _has_digit(line):
        return "number"
    if "upper_case" in active:
        num_letters = sum(char.isalpha() for char in line)
        num_upper = sum(char.isupper() for char in line)
        if num_upper > max_upper_case_fraction * num_letters:
            return "upper_case"
    if "counter" in active and COUNTER.fullmatch(line):
        return "counter"
    if "call_to_action" in active and num_words <= max_call_words and CALL.search(lower):
        return "call_to_action"
    return ""


def _has_digit(line: str) -> bool:
    return any(char.isdigit() for char in line)
