"""Parameters that the stages which measure share."""

from pydantic import Field, model_validator

from components.section import Section


class BitsParams(Section):
    max_tokens: int = Field(ge=1024, description="of held-out documents, taken evenly")
    context_tokens: int = Field(ge=2, description="the longest row a token is predicted in")
    stride_tokens: int = Field(ge=1, description="how far a long document's rows are apart")

    @model_validator(mode="after")
    def _overlap(self) -> "BitsParams":
        if self.stride_tokens > self.context_tokens:
            raise ValueError(
                f"stride_tokens is {self.stride_tokens}; it must not exceed context_tokens "
                f"{self.context_tokens}, or tokens would be skipped"
            )
        return self


class TaskParams(Section):
    rules: list[str] = Field(min_length=1, description="conversations the task is made from")
    num_items: int = Field(ge=2)
