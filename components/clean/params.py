"""The `clean` section of params.yaml: which documents stay, which lines, what is anonymised."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from components.section import Section

Metric = Literal[
    "language_score",
    "num_words",
    "mean_word_length_chars",
    "hash_word_ratio",
    "ellipsis_word_ratio",
    "bullet_line_fraction",
    "ellipsis_line_fraction",
    "alphabetic_word_fraction",
    "num_stop_words",
    "garbled_char_fraction",
    "duplicate_paragraph_fraction",
    "duplicate_paragraph_char_fraction",
    "duplicate_line_fraction",
    "duplicate_line_char_fraction",
    "top_2_gram_char_fraction",
    "top_3_gram_char_fraction",
    "top_4_gram_char_fraction",
    "duplicate_5_gram_char_fraction",
    "duplicate_6_gram_char_fraction",
    "duplicate_7_gram_char_fraction",
    "duplicate_8_gram_char_fraction",
    "duplicate_9_gram_char_fraction",
    "duplicate_10_gram_char_fraction",
    "removed_word_fraction",
    "num_lorem_ipsum_lines",
    "num_curly_bracket_lines",
    "num_sentences",
    "third_longest_line_chars",
    "terminal_line_fraction",
    "short_line_fraction",
    "repeated_line_char_fraction",
    "newline_word_ratio",
]

METRICS: tuple[Metric, ...] = get_args(Metric)

LineRule = Literal[
    "long_word",
    "citation",
    "no_terminal_punctuation",
    "few_words",
    "javascript",
    "policy",
    "upper_case",
    "number",
    "counter",
    "call_to_action",
]

PiiKind = Literal["email", "phone", "ipv4", "key"]

Bounds = tuple[float | None, float | None]


class LanguageParams(Section):
    """fastText's lid.176.ftz."""

    keep: list[str] = Field(description="codes such as `en`; an empty list keeps every language")
    max_chars: int = Field(ge=1, description="of the beginning of the document, read for it")


class LineParams(Section):
    """Correction line by line."""

    rules: list[LineRule] = Field(description="in any order; a line that fails one goes")
    min_words: int = Field(ge=1, description="of few_words")
    max_word_chars: int = Field(ge=1, description="of long_word")
    max_upper_case_fraction: float = Field(gt=0, le=1, description="of letters, for upper_case")
    max_call_words: int = Field(ge=1, description="a longer line is no call_to_action")


class FitParams(Section):
    """Bounds from the corpus's own percentiles, language by language, as CulturaX does."""

    num_documents: int = Field(ge=1, description="training documents in the sample")
    min_documents: int = Field(ge=1, description="a language with fewer keeps the stated bounds")
    q_low: float = Field(ge=0, lt=1)
    q_high: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _quantiles_are_ordered(self) -> Self:
        if self.q_low >= self.q_high:
            raise ValueError(f"q_low {self.q_low} must be below q_high {self.q_high}")
        return self


class PiiParams(Section):
    """What is replaced, and by what."""

    placeholders: dict[PiiKind, str] = Field(description="a kind that is left out stays as it is")
    phone_region: str | None = Field(
        pattern="^[A-Z]{2}$",
        description="country whose national numbers count; null: only numbers with + and a code",
    )


class CleanParams(Section):
    """Scores first, then one decision."""

    max_document_chars: int = Field(
        ge=1, description="a longer document is rejected unread: it bounds the memory"
    )
    language: LanguageParams
    lines: LineParams
    short_line_chars: int = Field(ge=0, description="of short_line_fraction")
    rules: dict[Metric, Bounds] = Field(
        description="the document stays if low <= metric <= high for all; null leaves a side open; "
        "the first rule that fails is the reason"
    )
    language_rules: dict[str, dict[Metric, Bounds]] = Field(
        description="what differs in a language; [null, null] lifts a rule there"
    )
    fit: FitParams | None
    pii: PiiParams
    rows_per_shard: int = Field(ge=1)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        sections = {"rules": self.rules} | {
            f"language_rules.{language}": rules for language, rules in self.language_rules.items()
        }
        for section, rules in sections.items():
            for metric, (low, high) in rules.items():
                if low is not None and high is not None and low > high:
                    raise ValueError(f"{section}.{metric}: low {low:g} is above high {high:g}")
        return self
