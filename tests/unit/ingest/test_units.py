"""A unit of work on another machine than the one that found its files."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError
from components.ingest.params import IngestParams
from components.ingest.reading import Recipe, Unit, is_read, read_same_unit, read_unit
from components.ingest.sources import fetch
from components.ingest.units import units_from_json, units_of, units_to_json
from components.metrics import QuietSink
from components.section import read_yaml

SECTION: dict[str, Any] = read_yaml(Path("params.yaml"))["ingest"]
QUESTIONS = read_yaml(Path("components/ingest/phrasings.yaml"))["questions"]
NUM_FILES = 300


@pytest.fixture
def params(tmp_path: Path) -> IngestParams:
    (tmp_path / "data").mkdir()
    for number in range(NUM_FILES):
        (tmp_path / "data" / f"{number:03d}.txt").write_text(f"Valve {number} leaks.")
    location = f"{tmp_path}/data/*.txt"
    source = {"name": "notes", "kind": "files", "content": "documents", "licence": "MIT"}
    return IngestParams.model_validate(SECTION | {"sources": [source | {"location": location}]})


def units(params: IngestParams, folder: Path) -> list[Unit]:
    found = fetch(params.sources[0], folder / "downloads", 1, QuietSink())
    return list(units_of(params.sources[0], found, params, folder / "units"))


def recipe(params: IngestParams) -> Recipe:
    return Recipe(params.extractor, params.split, params.conversations, QUESTIONS)


def test_units_are_told_whole(tmp_path: Path, params: IngestParams) -> None:
    before = units(params, tmp_path)
    assert [len(unit.files) for unit in before] == [128, 128, 44]
    assert all(len(file.sha256) == 64 for unit in before for file in unit.files)
    told = units_to_json(before, tmp_path / "units")
    elsewhere = units_from_json(told, params, tmp_path / "other")
    assert [unit.files for unit in elsewhere] == [unit.files for unit in before]
    assert [unit.folder.parent for unit in elsewhere] == [tmp_path / "other"] * 3
    assert units_from_json(told, params, tmp_path / "units") == before


def test_a_file_that_was_downloaded_is_found_by_the_machines_own_way_to_it(
    tmp_path: Path, params: IngestParams
) -> None:
    before = units(params, tmp_path)
    told = units_to_json(before, tmp_path)  # as if `data` had been downloaded to `work`
    other = tmp_path / "link"
    other.symlink_to(tmp_path)
    after = units_from_json(told, params, other)
    assert after[0].files[0].path == other / "data" / "000.txt"
    read_same_unit(after[0], recipe(params))
    assert is_read(before[0])


def test_a_machine_that_has_another_file_reads_none_of_its_unit(
    tmp_path: Path, params: IngestParams
) -> None:
    first, _, last = units(params, tmp_path)
    first.files[7].path.write_text("Another leaks.")  # as long as it was
    with pytest.raises(DataError) as caught:
        read_same_unit(first, recipe(params))
    assert caught.value.message == (
        f"source notes: {first.files[7].name} is another file here than on the leader"
    )
    assert not is_read(first)
    read_same_unit(last, recipe(params))
    assert is_read(last)


def test_a_file_out_of_a_package_is_read_as_it_lies_on_the_volume(
    tmp_path: Path, params: IngestParams
) -> None:
    (*_, last) = units(params, tmp_path)
    unpinned = replace(last, files=tuple(replace(file, sha256="") for file in last.files))
    read_same_unit(unpinned, recipe(params))
    assert read_unit(last, recipe(params))["num_documents"] == 44


def test_of_two_that_read_one_unit_at_once_the_first_stays_and_nothing_else_is_left(
    tmp_path: Path, params: IngestParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.ingest import reading

    (unit, *_) = units(params, tmp_path)
    together = threading.Barrier(2)
    write = reading._write

    def write_together(*arguments: Any) -> Any:
        counts = write(*arguments)
        together.wait()
        return counts

    monkeypatch.setattr(reading, "_write", write_together)
    counts: list[Any] = []
    threads = [
        threading.Thread(target=lambda: counts.append(read_unit(unit, recipe(params))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts[0] == counts[1]
    assert counts[0]["num_documents"] == 128
    assert list((tmp_path / "units").iterdir()) == [unit.folder]
