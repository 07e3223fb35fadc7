"""The `tokenize` section of params.yaml."""

from pydantic import Field, model_validator

from components.section import Section

NUM_FIXED_PIECES = 9 + 256
"""Special tokens and the 256 bytes: pieces that are there before any is learned."""


class TokenizeParams(Section):
    vocab_size: int = Field(gt=NUM_FIXED_PIECES, le=1 << 20, description="pieces, special included")
    character_coverage: float = Field(
        gt=0.9, le=1.0, description="share of characters with a piece; the rest becomes bytes"
    )
    training_sample_mb: float = Field(
        gt=0.0, description="text that the vocabulary is learned from, in 10^6 bytes"
    )
    tokens_per_shard: int = Field(ge=1024, description="a shard ends with the next document")

    @model_validator(mode="after")
    def _sample_carries_the_vocabulary(self) -> "TokenizeParams":
        needed_mb = (self.vocab_size - NUM_FIXED_PIECES) * 20 / 1e6
        if self.training_sample_mb < needed_mb:
            raise ValueError(
                f"tokenize.training_sample_mb is {self.training_sample_mb}, too little text for "
                f"tokenize.vocab_size {self.vocab_size}: at least {needed_mb:.2f}"
            )
        return self
