"""The `dedup` section of params.yaml: what counts as the same text, and what as leaked."""

from pydantic import Field

from components.section import Section


class MinHashParams(Section):
    """Near duplicates: candidates by MinHash LSH, verified by their true Jaccard similarity."""

    ngram_words: int = Field(ge=1, description="words of a shingle")
    bands: int = Field(ge=1)
    rows: int = Field(ge=1, description="hashes of a band; candidates agree in all of one band")
    min_jaccard: float = Field(gt=0, le=1, description="of the shingle sets, checked exactly")
    max_neighbours: int = Field(
        ge=1, description="others of one bucket that a document is compared with, at most"
    )


class ParagraphsParams(Section):
    """Lines that occur again and again, after CCNet."""

    min_occurrences: int = Field(ge=2, description="in the whole corpus; then only the first stays")
    min_chars: int = Field(ge=1, description="a shorter line always stays")


class DecontaminationParams(Section):
    """Training documents, conversations and ratings that give held-out ones away."""

    ngram_words: int = Field(ge=1)
    min_overlap: float = Field(
        gt=0, le=1, description="shared n-grams over those of the smaller of the two documents"
    )
    max_documents_per_ngram: int = Field(
        ge=1, description="an n-gram of more held-out documents than this gives none of them away"
    )
    min_answer_chars: int = Field(
        ge=1, description="a shorter held-out answer is only looked for together with its prompt"
    )


class DedupParams(Section):
    """Exact duplicates always go; each of the rest can be null."""

    minhash: MinHashParams | None
    paragraphs: ParagraphsParams | None
    decontamination: DecontaminationParams | None
    rows_per_shard: int = Field(ge=1)
