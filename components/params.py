"""The twin of params.yaml: every section's type, and the rules that hold between sections.

Imports nothing heavier than pydantic, so a worker validates everything in milliseconds.
"""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from components.addresses import with_secrets
from components.clean.params import CleanParams
from components.dedup.params import DedupParams
from components.dpo.params import DpoParams
from components.errors import UserError
from components.evaluate.params import EvaluateParams
from components.ingest.params import IngestParams
from components.pretrain.params import PretrainParams
from components.quantize.params import QuantizeParams
from components.reward_model.params import RewardModelParams
from components.section import Section, explain, read_yaml
from components.sft.params import SftParams
from components.tokenize.params import TokenizeParams


class Params(Section):
    seed: int = Field(ge=0, lt=2**31, description="every random choice of every stage")
    ingest: IngestParams
    clean: CleanParams
    dedup: DedupParams
    tokenize: TokenizeParams
    pretrain: PretrainParams
    sft: SftParams
    reward_model: RewardModelParams
    dpo: DpoParams
    quantize: QuantizeParams
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _agree(self) -> Self:
        faults = [*_too_long_for_the_model(self), *_not_whole_groups(self)]
        if faults:
            raise ValueError("\n".join(faults))
        return self


def _too_long_for_the_model(params: Params) -> list[str]:
    limit = params.pretrain.model.max_length
    lengths = {
        "sft.batch.row_length": params.sft.batch.row_length,
        "reward_model.row_length": params.reward_model.row_length,
        "dpo.row_length": params.dpo.row_length,
        "quantize.bits.context_tokens": params.quantize.bits.context_tokens,
        "evaluate.bits.context_tokens": params.evaluate.bits.context_tokens,
    }
    return [
        f"{key}: {length} is above pretrain.model.max_length {limit}"
        for key, length in lengths.items()
        if length > limit
    ]


def _not_whole_groups(params: Params) -> list[str]:
    """A quantized layer's inputs are split into groups without a rest."""
    model, group_size = params.pretrain.model, params.quantize.group_size
    return [
        f"quantize.group_size: {group_size} does not divide pretrain.model.{name} {width}"
        for name, width in (
            ("hidden_size", model.hidden_size),
            ("intermediate_size", model.intermediate_size),
        )
        if width % group_size
    ]


PARAMS_OF: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Params.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""Each stage's section type, by the stage's name."""


def load_params(path: Path) -> Params:
    """params.yaml, typed. Raises UserError with one line for every wrong key or value."""
    return parse_params(read_yaml(path), path.name)


def parse_params(values: Any, name: str) -> Params:
    """`values` as read from YAML; `name` is the file's, for messages.

    An address with a password or a key is refused: DVC writes params to dvc.lock, and git keeps it.
    """
    secret = list(with_secrets(values))
    if secret:
        raise UserError(
            f"{name}: {', '.join(secret)}: an address with a password or a key in it",
            "leave it out; fsspec takes it from the environment, e.g. the store's own variables or "
            """FSSPEC_HTTPS='{"client_kwargs": {"headers": {"Authorization": "..."}}}'""",
        )
    try:
        # Through JSON: strict there still lets a list become a tuple, which YAML has no word for.
        return Params.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise UserError("\n".join(f"{name}: {line}" for line in explain(error))) from error
