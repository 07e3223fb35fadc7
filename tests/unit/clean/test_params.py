"""The clean section: what it refuses, and what it says then."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from components.clean.params import CleanParams

SECTION = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text("utf-8"))["clean"]


def parse(**changes: object) -> CleanParams:
    return CleanParams.model_validate_json(json.dumps(SECTION | changes))


def test_rules_keep_the_order_of_the_file() -> None:
    assert list(parse().rules) == list(SECTION["rules"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": {"num_words": [10, 5]}}, "rules.num_words: low 10 is above high 5"),
        (
            {"language_rules": {"zh": {"num_words": [2, 1]}}},
            "language_rules.zh.num_words: low 2 is above high 1",
        ),
        ({"rules": {"num_wrods": [1, 2]}}, "rules.num_wrods"),
        ({"rules": {"num_words": [1]}}, "rules.num_words"),
        (
            {"fit": {"num_documents": 9, "min_documents": 1, "q_low": 0.6, "q_high": 0.5}},
            "q_low 0.6 must be below q_high 0.5",
        ),
        ({"pii": {"placeholders": {"fax": "x"}, "phone_region": None}}, "pii.placeholders.fax"),
        ({"pii": {"placeholders": {}, "phone_region": "usa"}}, "pii.phone_region"),
        ({"rows_per_shard": 0}, "rows_per_shard"),
        ({"lines": {**SECTION["lines"], "rules": ["few_wrods"]}}, "lines.rules.0"),
    ],
)
def test_a_wrong_section_is_refused_with_its_key(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        parse(**changes)
