import gzip
import json
from pathlib import Path

import botocore
import pytest

from components.errors import DataError, UserError
from components.ingest.api_models import data_folder, model_files, read_operations, render
from components.ingest.extract import html_title, html_to_text

MODEL = {
    "metadata": {"serviceFullName": "Example <Store>"},
    "operations": {
        "PutThing": {
            "documentation": "<p>Stores a <i>thing</i>.</p>",
            "input": {"shape": "PutThingInput"},
            "output": {"shape": "Empty"},
        },
        "GetThing": {},
    },
    "shapes": {
        "PutThingInput": {
            "type": "structure",
            "required": ["Name"],
            "members": {
                "Name": {"shape": "ThingName"},
                "Size": {"shape": "Number", "documentation": "<p>Its size in bytes.</p>"},
            },
        },
        "ThingName": {"type": "string", "documentation": "<p>What it is called.</p>"},
        "Number": {"type": "integer", "documentation": "<p>Any number.</p>"},
        "Empty": {"type": "structure", "members": {}},
    },
}


def write_model(data: Path, service: str, version: str) -> Path:
    path = data / service / version / "service-2.json.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(json.dumps(MODEL).encode()))
    return path


def test_another_version_than_the_pinned_one_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError) as caught:
        data_folder("botocore==0.0.1")
    assert caught.value.message == (
        f"the corpus is botocore==0.0.1, but {botocore.__version__} is installed"
    )
    assert f"botocore=={botocore.__version__}" in caught.value.hint


def test_the_installed_package_is_found_where_it_is() -> None:
    folder = data_folder(f"botocore=={botocore.__version__}")
    assert folder == Path(botocore.__path__[0]) / "data"
    assert len(model_files(folder, "*/*")) == 467


def test_the_glob_chooses_services_and_versions(tmp_path: Path) -> None:
    old = write_model(tmp_path, "store", "2014-09-30")
    new = write_model(tmp_path, "store", "2020-01-02")
    other = write_model(tmp_path, "attic", "1999-01-01")
    assert model_files(tmp_path, "*/*") == [other, old, new]
    assert model_files(tmp_path, "store/*") == [old, new]


def test_operations_come_with_their_members(tmp_path: Path) -> None:
    operations = list(read_operations(write_model(tmp_path, "store", "2020")))
    assert [operation.name for operation in operations] == ["GetThing", "PutThing"]
    put = operations[1]
    assert put.path == "store/2020/PutThing"
    assert [(one.name, one.type, one.required) for one in put.parameters] == [
        ("Name", "string", True),
        ("Size", "integer", False),
    ]
    # A member's own documentation, else that of its shape.
    assert [one.documentation for one in put.parameters] == [
        "<p>What it is called.</p>",
        "<p>Its size in bytes.</p>",
    ]
    assert put.output == ()


def test_a_page_reads_as_title_description_parameters(tmp_path: Path) -> None:
    put = list(read_operations(write_model(tmp_path, "store", "2020")))[1]
    assert html_title(render(put)) == "Example <Store>: PutThing"
    assert html_to_text(render(put), "resiliparse_all").split("\n\n") == [
        "Example <Store>: PutThing",
        "Stores a thing.",
        "Parameters",
        "Name (string, required)",
        "What it is called.",
        "Size (integer)",
        "Its size in bytes.",
    ]


def test_a_model_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path, "store", "2020")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"service-2\.json\.gz: not a whole API model"):
        list(read_operations(path))


def test_a_model_that_is_damaged_is_named_wherever_the_damage_is(tmp_path: Path) -> None:
    path = write_model(tmp_path, "store", "2020")
    whole = path.read_bytes()
    for place in range(10, len(whole) - 4):
        path.write_bytes(whole[:place] + bytes(byte ^ 0xFF for byte in whole[place:][:4]))
        with pytest.raises(DataError, match=r"service-2\.json\.gz: not a whole API model"):
            list(read_operations(path))


def test_a_model_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path, "store", "2020")
    path.write_bytes(gzip.compress(b"[" * 200_000))
    with pytest.raises(DataError, match=r"service-2\.json\.gz: not a whole API model"):
        list(read_operations(path))
