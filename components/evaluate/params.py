"""The `evaluate` section of params.yaml."""

from pydantic import Field, model_validator

from components.measure.params import BitsParams, TaskParams
from components.section import Section


class NgramParams(Section):
    order: int = Field(ge=1, le=12)
    max_train_tokens: int = Field(ge=1024)


class CompressorParams(Section):
    xz_preset: int = Field(ge=0, le=9)
    zstd_level: int = Field(ge=1, le=22)
    max_dictionary_mb: int = Field(ge=1, le=1024, description="of training text, the primed zstd's")


class PreferenceParams(Section):
    num_prompts: int = Field(ge=2, description="rated prompts, each with all its responses")


class JudgeParams(Section):
    num_prompts: int = Field(ge=2, description="prompts that SFT and DPO answer")
    max_new_tokens: int = Field(ge=1)
    num_samples: int = Field(ge=1, description="of them shown in samples.md, by every model")


class EvaluateParams(Section):
    bits: BitsParams
    ngram: NgramParams
    compressors: CompressorParams
    task: TaskParams
    preference: PreferenceParams
    judge: JudgeParams

    @model_validator(mode="after")
    def _samples(self) -> "EvaluateParams":
        if self.judge.num_samples > self.judge.num_prompts:
            raise ValueError(
                f"judge.num_samples is {self.judge.num_samples}; it must not exceed "
                f"judge.num_prompts {self.judge.num_prompts}"
            )
        return self
