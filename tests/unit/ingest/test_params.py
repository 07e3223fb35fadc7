from typing import Any

import pytest
from pydantic import ValidationError

from components.ingest.params import IngestParams
from components.section import explain


def section(**changes: Any) -> dict[str, Any]:
    source = {
        "name": "mine",
        "kind": "files",
        "location": "data/*.html",
        "content": "documents",
        "licence": "MIT",
    }
    return {
        "sources": [source | changes.pop("source", {})],
        "extractor": "resiliparse_all",
        "split": {"train": 0.9, "valid": 0.05, "test": 0.05},
        "conversations": {
            "parameters_per_operation": 1,
            "min_answer_chars": 10,
            "max_answer_chars": 100,
        },
        "ratings": {
            "num_prompts": {"train": 1, "valid": 1, "test": 1},
            "prior_softening": 0.1,
            "endpoint_model": "m",
        },
        "rows_per_shard": 10,
    } | changes


def faults(**changes: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        IngestParams.model_validate(section(**changes))
    return explain(caught.value)


def test_a_source_may_leave_out_what_is_usual() -> None:
    source = IngestParams.model_validate(section()).sources[0]
    assert (source.sha256, source.format, source.extractor) == (None, "auto", None)


def test_fractions_that_do_not_sum_to_one_are_named() -> None:
    assert faults(split={"train": 0.9, "valid": 0.2, "test": 0.05}) == [
        "split: train 0.9 + valid 0.2 + test 0.05 = 1.15; the three must sum to 1"
    ]


def test_an_answer_range_without_room_is_refused() -> None:
    conversations = {"parameters_per_operation": 1, "min_answer_chars": 9, "max_answer_chars": 8}
    assert faults(conversations=conversations) == [
        "conversations: min_answer_chars 9 is above max_answer_chars 8"
    ]


def test_two_sources_of_one_name_are_refused() -> None:
    twice = section()["sources"] * 2
    assert faults(sources=twice) == ["source names must be unique; named twice: mine"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"kind": "deb", "location": "sqlite3-doc"}, "is a package and a glob"),
        ({"kind": "pypi", "location": "thing *.txt"}, "names a version, such as pypi==1.0"),
        ({"kind": "botocore", "location": "botocore */*"}, "names a version"),
        (
            {"kind": "botocore", "location": "botocore==1 */*", "content": "ratings"},
            "content of kind botocore is documents, not ratings",
        ),
        ({"kind": "deb", "location": "https://jane:pw@host/a"}, "not 'https://***@host/a'"),
        ({"sha256": "abc"}, "should match pattern"),
        ({"format": "docx"}, "'html', 'markdown'"),
        ({"name": "My Data"}, "should match pattern"),
        ({"colour": "red"}, "unknown key"),
    ],
)
def test_a_wrong_source_is_explained_in_one_line(source: dict[str, str], fault: str) -> None:
    lines = faults(source=source)
    assert len(lines) == 1
    assert lines[0].startswith("sources.0")
    assert fault in lines[0]
