"""The fields of the start forms in Prefect's UI, made from the types of params.yaml."""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)
from pydantic.fields import FieldInfo

from components.addresses import SECRET_VALUE, USER_INFO
from components.contract import STAGES, Json
from components.errors import UserError
from components.params import Params
from components.section import Section, parse_yaml
from tasks.config import Launcher

Stage = Literal[STAGES]  # type: ignore[valid-type]  # one home for the names
Where = Literal["default", Launcher]
"""Where stages run; the default is HEADRACE_LAUNCHER of the machine that runs the flow."""

FIELDS = (
    "pretrain.num_steps", "pretrain.schedule.learning_rate", "pretrain.batch.tokens_per_batch",
    "sft.num_steps", "sft.schedule.learning_rate",
    "reward_model.loss", "dpo.loss", "dpo.beta", "dpo.schedule.learning_rate",
    "quantize.group_size",
)  # fmt: skip
"""Params with a field of their own, typed and bounded as in params.yaml; the rest go by name."""


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every param under `section` that is no section itself: its dotted key and its field."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _field_name(key: str) -> str:
    return key.replace(".", "__")


PARAMS: dict[str, FieldInfo] = dict(leaves(Params))


def without_secrets() -> str:
    """A pattern, for Python and browsers, of texts in which no address has a password or a key.

    Prefect keeps what is typed into a form; what breaks the form's schema it refuses before that.
    """
    words = SECRET_VALUE.pattern.replace('\\"', '"')
    words = re.sub(r"(?<!\\)[a-z]", lambda found: f"[{found[0]}{found[0].upper()}]", words)
    return rf"^(?![\s\S]*{USER_INFO.pattern})(?!(?=[\s\S]*://)[\s\S]*{words})"


Reason = Annotated[str, Field(json_schema_extra={"pattern": without_secrets()})]
"""A text that Prefect keeps, and MLflow for ever."""


class Other(BaseModel):
    """One param by its name."""

    model_config = ConfigDict(extra="forbid")

    key: Literal[tuple(PARAMS)] = Field(description="as in params.yaml")  # type: ignore[valid-type]
    value: str = Field(
        description="as YAML: 0.5, true, [en, de], null; no password or key in an address",
        max_length=2000,
        json_schema_extra={"pattern": without_secrets()},  # pydantic's own know no lookaround
    )


BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def bounds(field: FieldInfo) -> str:
    """In words, for Prefect's form keeps them to itself until one is broken; empty if there is none."""
    return ", ".join(
        f"{words} {getattr(limit, name)}"
        for limit in field.metadata
        for name, words in BOUNDS.items()
        if hasattr(limit, name)
    )


def _fields() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key in FIELDS:
        if key in PARAMS:
            field = PARAMS[key]
            kind = (
                Annotated[(field.annotation, *field.metadata)]
                if field.metadata
                else field.annotation
            )
            text = "; ".join(filter(None, (field.description, bounds(field))))
            fields[_field_name(key)] = (
                kind | None,  # type: ignore[operator]
                Field(None, title=key, description=text or None),
            )
    return fields


def _empty_is_absent(schema: dict[str, Any]) -> None:
    """A field that may be left empty, and not one of two types of which one is null."""
    for field in schema["properties"].values():
        kinds = field.pop("anyOf", [])
        if kinds:
            field.update(next(kind for kind in kinds if kind.get("type") != "null"))
            field.pop("default", None)


class Overrides(create_model("_Fields", **_fields())):  # type: ignore[misc]
    """Params that differ from params.yaml: the run becomes a DVC experiment."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_empty_is_absent)

    others: list[Other] = Field([], title="others", description="further params by name")

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Json]:
        fields: dict[str, Json] = serialize(self)
        return {name: value for name, value in fields.items() if value is not None}

    def values(self) -> dict[str, Json]:
        """Dotted key to value, of what is set. Raises UserError for a text that is no YAML."""
        named = {key: getattr(self, _field_name(key)) for key in FIELDS if key in PARAMS}
        found = {key: value for key, value in named.items() if value is not None}
        return found | {other.key: parse_yaml(other.value, other.key) for other in self.others}

    @classmethod
    def of(cls, values: Mapping[str, Json]) -> "Overrides":
        """From dotted keys and values. Raises UserError for an unknown key."""
        unknown = [key for key in values if key not in PARAMS]
        if unknown:
            near = get_close_matches(unknown[0], PARAMS, n=3)
            hint = f"perhaps {', '.join(near)}" if near else "see params.yaml for the names"
            raise UserError(f"{unknown[0]}: no such param", hint)
        others = [  # made without the form's bounds, which are those of what is typed there
            Other.model_construct(key=key, value=json.dumps(value)) for key, value in values.items()
        ]
        return cls(others=others)
