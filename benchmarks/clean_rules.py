"""Clean's rules against datatrove's same filters: the same documents and words, one core each.

python -m benchmarks.clean_rules --documents artifacts/ingest/documents/train

The rules are FineWeb's: Gopher repetition, Gopher quality, C4 without terminal punctuation, FineWeb
quality, with their published bounds. datatrove stops at a document's first failure; ours scores
every document completely, as the stage does. Both split words by a regular expression that yields
our words, which is faster than spaCy, datatrove's own; `--words spacy` gives it its own.
"""

import argparse
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.text import split_into_parts
from datatrove.utils.word_tokenizers import WordTokenizer

from components.clean.decision import EMPTY, KEPT, decide
from components.clean.lines import correct_lines, normalise_lines
from components.clean.quality import num_sentences
from components.clean.scoring import CHARS_PER_BATCH, batches_of_chars, score_texts
from components.shards import iter_batches

RULES = {
    "duplicate_paragraph_fraction": (None, 0.3),
    "duplicate_paragraph_char_fraction": (None, 0.2),
    "duplicate_line_fraction": (None, 0.3),
    "duplicate_line_char_fraction": (None, 0.2),
    "top_2_gram_char_fraction": (None, 0.2),
    "top_3_gram_char_fraction": (None, 0.18),
    "top_4_gram_char_fraction": (None, 0.16),
    "duplicate_5_gram_char_fraction": (None, 0.15),
    "duplicate_6_gram_char_fraction": (None, 0.14),
    "duplicate_7_gram_char_fraction": (None, 0.13),
    "duplicate_8_gram_char_fraction": (None, 0.12),
    "duplicate_9_gram_char_fraction": (None, 0.11),
    "duplicate_10_gram_char_fraction": (None, 0.10),
    "num_words": (50, 100_000),
    "mean_word_length_chars": (3, 10),
    "hash_word_ratio": (None, 0.1),
    "ellipsis_word_ratio": (None, 0.1),
    "bullet_line_fraction": (None, 0.9),
    "ellipsis_line_fraction": (None, 0.3),
    "alphabetic_word_fraction": (0.8, None),
    "num_stop_words": (2, None),
    "num_lorem_ipsum_lines": (None, 0),
    "num_curly_bracket_lines": (None, 0),
    "num_sentences": (5, None),
    "terminal_line_fraction": (0.12, None),
    "short_line_fraction": (None, 0.67),
    "repeated_line_char_fraction": (None, 0.01),
    "newline_word_ratio": (None, 0.3),
}
CORRECT = partial(
    correct_lines,
    rules=("long_word", "citation", "few_words", "javascript", "policy"),
    min_words=3,
    max_word_chars=1000,
    max_upper_case_fraction=0.5,
    max_call_words=10,
)
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class RegexWords(WordTokenizer):
    """Our words of Latin text, and our sentences."""

    def word_tokenize(self, text: str) -> list[str]:
        return WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError("datatrove's filters ask for spans")

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(number, number + 1) for number in range(num_sentences(text))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=Path, default=Path("artifacts/ingest/documents/train"))
    parser.add_argument("--num-documents", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5, help="of each, in turn")
    parser.add_argument("--words", choices=("regex", "spacy"), default="regex")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    rows = (
        text.as_py()
        for batch in iter_batches(arguments.documents, ["text"])
        for text in batch.column("text")
    )
    # datatrove takes a lone bullet for a word; of a dash both think the same.
    texts = [
        normalise_lines(text.replace("•", "-")) for text in islice(rows, arguments.num_documents)
    ]
    texts = [text for text in texts if text]
    filters = [
        kind(language="eng" if arguments.words == "spacy" else RegexWords(), **changes)
        for kind, changes in (
            (GopherRepetitionFilter, {}),
            (GopherQualityFilter, {}),
            (C4QualityFilter, {"filter_no_terminal_punct": False}),
            (FineWebQualityFilter, {}),
        )
    ]

    def ours() -> list[bool]:
        return our_decisions(texts)

    def datatrove() -> list[bool]:
        split_into_parts.cache_clear()
        return [passes(Document(text=text, id="0"), filters) for text in texts]

    seconds: dict[str, list[float]] = {"ours": [], "datatrove": []}
    fates: dict[str, list[bool]] = {}
    for _ in range(arguments.repeats):
        for name, judge in (("ours", ours), ("datatrove", datatrove)):
            elapsed_s, fates[name] = cpu_seconds(judge)
            seconds[name].append(elapsed_s)
    report(texts, seconds, fates)


def our_decisions(texts: Sequence[str]) -> list[bool]:
    """Whether each text stays. Language identification reads one character: it is not compared."""
    stays: list[bool] = []
    for part in batches_of_chars([len(text) for text in texts], CHARS_PER_BATCH):
        scored = score_texts(texts[part], CORRECT, language_max_chars=1, short_line_chars=30)
        faults = [KEPT if text else EMPTY for text in scored.texts]
        english = ["en"] * len(scored.texts)
        reasons = decide(scored.scores, english, faults, keep_languages=[], rules_of={"": RULES})
        stays += [reason == KEPT for reason in reasons]
    return stays


def passes(document: Document, filters: Sequence[BaseFilter]) -> bool:
    return all(each.filter(document) is True for each in filters)


def cpu_seconds(work: Callable[[], list[bool]]) -> tuple[float, list[bool]]:
    began_s = time.process_time()
    result = work()
    return time.process_time() - began_s, result


def report(
    texts: Sequence[str], seconds: dict[str, list[float]], fates: dict[str, list[bool]]
) -> None:
    num_bytes = sum(len(text.encode()) for text in texts)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{len(texts):,} documents, {num_bytes / 1e6:.1f} MB, CPU seconds of one core, median of")
    print(f"{len(seconds['ours'])} runs in turn\n")
    print(f"{'':10s} {'docs/s/core':>12s} {'MB/s/core':>10s} {'spread':>8s} {'kept':>7s}")
    for name, median_s in medians.items():
        spread = (max(seconds[name]) - min(seconds[name])) / median_s
        print(
            f"{name:10s} {len(texts) / median_s:12,.0f} {num_bytes / 1e6 / median_s:10.2f} "
            f"{spread:8.0%} {sum(fates[name]):7,d}"
        )
    print(f"\nours / datatrove: {medians['datatrove'] / medians['ours']:.2f} times the speed")
    same = Counter(one == other for one, other in zip(*fates.values(), strict=True))
    print(f"same decision on {same[True]:,} of {len(texts):,} documents")


if __name__ == "__main__":
    main()
