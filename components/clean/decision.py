"""From scores to a decision, and from a sample of scores to the bounds."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.clean.params import Bounds, Metric

Rules = Mapping[Metric, Bounds]
RulesOfLanguage = Mapping[str, Rules]
"""The rules of each language that has its own; those of every other one stand under ""."""
Scores = Mapping[str, NDArray[np.float64]]

KEPT = ""
EMPTY = "empty"
TOO_LONG = "too_long"
LANGUAGE = "language"
ENGLISH_ONLY = frozenset({"num_stop_words"})  # Gopher's stop words are English


def decide(
    scores: Scores,
    languages: Sequence[str],
    faults: Sequence[str],
    *,
    keep_languages: Sequence[str],
    rules_of: RulesOfLanguage,
) -> list[str]:
    """Why each document is removed, or "" if it stays.

    A fault (`empty`, `too_long`) stands whatever the scores say; then comes `language`, if
    `keep_languages` are named and the document's is not among them; then the first rule it fails, as
    `<metric>_low` or `<metric>_high`. A value equal to a bound passes.
    """
    language = np.array(languages, dtype=object)
    reasons = np.array(faults, dtype=object)
    for name in sorted(set(languages)):
        members = np.flatnonzero((language == name) & (reasons == KEPT))
        if keep_languages and name not in keep_languages:
            reasons[members] = LANGUAGE
            continue
        for metric, (low, high) in rules_of.get(name, rules_of[""]).items():
            if metric in ENGLISH_ONLY and name != "en":
                continue
            values = scores[metric][members]
            is_low = values < (-np.inf if low is None else low)
            is_high = values > (np.inf if high is None else high)
            reasons[members[is_low]] = f"{metric}_low"
            reasons[members[is_high]] = f"{metric}_high"
            members = members[~(is_low | is_high)]
    return [str(reason) for reason in reasons]


def rules_by_language(rules: Rules, differing: Mapping[str, Rules]) -> dict[str, Rules]:
    """Whole sets of rules from the common ones and what differs in some languages."""
    return {"": rules} | {language: {**rules, **own} for language, own in differing.items()}


def fit_thresholds(scores: Scores, rules: Rules, q_low: float, q_high: float) -> Rules:
    """The rules with each stated bound replaced by the sample's quantile.

    CulturaX (Nguyen et al. 2023, arXiv 2309.09400) draws its thresholds from the distribution of
    each metric in each language; which percentiles it takes is not known, so they are arguments:
    a lower bound becomes the quantile `q_low`, an upper one `q_high`, an open side stays open.
    """
    return {
        metric: (
            None if low is None else float(np.quantile(scores[metric], q_low)),
            None if high is None else float(np.quantile(scores[metric], q_high)),
        )
        for metric, (low, high) in rules.items()
    }
