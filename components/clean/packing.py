"""Cleaned pieces and fitted rules on their way between machines."""

import json
from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from components.clean.cleaning import Cleaned, Counts
from components.clean.decision import RulesOfLanguage
from components.clean.params import Bounds, Metric
from components.piece_files import Packed
from components.sharing import Form

RULES = TypeAdapter(dict[str, dict[Metric, Bounds]])


def pack(cleaned: Cleaned) -> Packed:
    tables = [table for table in (cleaned.kept, cleaned.rejected) if table is not None]
    counts = {each.name: getattr(cleaned.counts, each.name) for each in fields(Counts)}
    return Packed(
        tables,
        {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in counts.items()
        },
    )


def unpack(packed: Packed) -> Cleaned:
    kept, *rejected = packed.tables
    counts = {name: _restored(value) for name, value in packed.figures.items()}
    return Cleaned(kept, rejected[0] if rejected else None, Counts(**counts))


CLEANED = Form("cleaned", pack, unpack)


def _restored(value: Any) -> Any:
    match value:
        case dict():
            return Counter(value)
        case list():
            return np.array(value, np.int64)
        case _:
            return value


def rules_to_json(rules: RulesOfLanguage) -> bytes:
    """The order of a language's rules is kept: the first one that a document fails is its reason."""
    return json.dumps(rules).encode()


def rules_from_json(text: bytes) -> RulesOfLanguage:
    return RULES.validate_json(text)
