"""The parent of every section of params.yaml: typed, closed and immutable."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Strict (no silent conversion), closed (an unknown key is an error) and frozen.

    A section has no defaults: `params.yaml` is the one home of every number.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
