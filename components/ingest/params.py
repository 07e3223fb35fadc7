"""The `ingest` section of params.yaml: what is read, how it is split, what is made from it."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from components.addresses import shown
from components.section import Section

Kind = Literal["botocore", "files", "deb", "pypi"]
Content = Literal["documents", "conversations", "ratings"]
Format = Literal[
    "auto", "html", "markdown", "text", "mallard", "jsonl", "parquet", "warc", "chatterbot"
]
Extractor = Literal["resiliparse_main", "resiliparse_all", "trafilatura"]


class SourceParams(Section):
    """One place that text comes from. The optional keys say how it differs from the usual."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="unique; goes into every row")
    kind: Kind
    location: str = Field(
        min_length=1,
        description="botocore: `botocore==VERSION SERVICE/VERSION`, a glob; files: path, glob or fsspec URL; "
        "deb: `PACKAGE GLOB`; pypi: `NAME==VERSION GLOB`",
    )
    content: Content
    licence: str = Field(min_length=1)
    sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="checked before anything is read"
    )
    format: Format = Field(default="auto", description="auto: by the file's suffix")
    extractor: Extractor | None = Field(default=None, description="instead of the section's")
    text_column: str = Field(default="text", description="of JSONL and Parquet")

    @model_validator(mode="after")
    def _location_fits_kind(self) -> Self:
        parts = self.location.split()
        if self.kind != "files" and len(parts) != 2:
            raise ValueError(
                f"source {self.name}: location of kind {self.kind} is a package and a glob "
                f"with a space between, not {shown(self.location)!r}"
            )
        if self.kind == "botocore" and self.content != "documents":
            raise ValueError(
                f"source {self.name}: content of kind botocore is documents, not {self.content}"
            )
        if self.kind in ("botocore", "pypi") and "==" not in parts[0]:
            raise ValueError(
                f"source {self.name}: location of kind {self.kind} names a version, "
                f"such as {self.kind}==1.0, not {shown(parts[0])!r}"
            )
        return self


class SplitFractions(Section):
    """Shares of the documents, by content hash."""

    train: float = Field(gt=0, le=1)
    valid: float = Field(ge=0, lt=1)
    test: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.valid + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(
                f"train {self.train} + valid {self.valid} + test {self.test} = {total:g}; "
                "the three must sum to 1"
            )
        return self


class ConversationsParams(Section):
    """Questions and answers made from documents by rule."""

    parameters_per_operation: int = Field(ge=0, le=64)
    min_answer_chars: int = Field(ge=1)
    max_answer_chars: int = Field(ge=1)

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.min_answer_chars > self.max_answer_chars:
            raise ValueError(
                f"min_answer_chars {self.min_answer_chars} is above "
                f"max_answer_chars {self.max_answer_chars}"
            )
        return self


class SplitCounts(Section):
    """One count for each split."""

    train: int = Field(ge=0)
    valid: int = Field(ge=0)
    test: int = Field(ge=0)


class RatingsParams(Section):
    """Candidate answers and who rates them."""

    num_prompts: SplitCounts
    prior_softening: float = Field(
        ge=0, le=1, description="share of the uniform distribution in the prior"
    )
    endpoint_model: str = Field(
        min_length=1,
        description="asked instead of the simulated crowd if HEADRACE_RATER_URL is set",
    )


class IngestParams(Section):
    """Sources in, documents, conversations and rated responses out."""

    sources: list[SourceParams] = Field(min_length=1)
    extractor: Extractor
    split: SplitFractions
    conversations: ConversationsParams
    ratings: RatingsParams
    rows_per_shard: int = Field(ge=1)

    @model_validator(mode="after")
    def _source_names_are_unique(self) -> Self:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source names must be unique; named twice: {', '.join(twice)}")
        return self
