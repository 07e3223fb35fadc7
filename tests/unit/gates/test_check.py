import re
from pathlib import Path

import pyarrow as pa
import pytest

from components.errors import DataError, UserError
from components.gates.__main__ import main
from components.gates.check import check_contract
from components.gates.tables import read_frames, report_frames
from components.shards import write_shards

DOCUMENTS = """
tables:
  documents:
    path: documents/*
    columns: [id, source, folder]
    lengths: [text, words]
    expectations:
      - {type: expect_column_values_to_be_unique, column: id, severity: critical}
      - type: expect_column_values_to_be_between
        column: text_num_chars
        min_value: 2
        severity: warning
      - type: expect_column_values_to_be_between
        column: words_num_items
        min_value: 1
        severity: critical
      - type: expect_column_distinct_values_to_equal_set
        column: folder
        value_set: [train, test]
        severity: critical
      - {type: expect_table_row_count_to_be_between, min_value: 4, severity: critical}
"""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("words", pa.list_(pa.string())),
    ]
)


def write_documents(out: Path, split: str, rows: list[tuple[str, str]]) -> None:
    columns = [
        [row[0] for row in rows],
        [row[1] for row in rows],
        ["web"] * len(rows),
        [row[1].split() for row in rows],
    ]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)
    write_shards(out / "documents" / split, [table], SCHEMA, rows_per_shard=3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    write_documents(folder, "train", [(f"id{i}", f"text number {i}") for i in range(7)])
    write_documents(folder, "test", [("id8", "another text")])
    return folder


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    path = tmp_path / "dedup" / "contract.yaml"
    path.parent.mkdir()
    path.write_text(DOCUMENTS)
    return path


def test_a_fitting_output_passes_and_its_page_says_so(
    out: Path, contract: Path, tmp_path: Path
) -> None:
    summary = check_contract(contract, out, {}, tmp_path / "page.html")
    assert summary == {"num_expectations": 5, "num_failed": 0, "warnings": []}
    page = (tmp_path / "page.html").read_text()
    assert "all expectations hold" in page
    assert "all 8 rows" in page
    assert not re.search(r"https?://|<script", page)


def test_a_duplicate_id_breaks_the_contract_in_one_line_and_the_page_is_written(
    out: Path, contract: Path, tmp_path: Path
) -> None:
    write_documents(out, "test", [("id3", "<b>again</b>")])
    with pytest.raises(DataError) as raised:
        check_contract(contract, out, {}, tmp_path / "page.html")
    assert raised.value.message == (
        "dedup: contract broken: documents: id values must be unique. "
        "(expect_column_values_to_be_unique): 2 of 8 rows, such as 'id3', 'id3'"
    )
    assert "contract broken" in (tmp_path / "page.html").read_text()


def test_a_warning_is_counted_and_does_not_fail(out: Path, contract: Path) -> None:
    write_documents(out, "test", [("id9", "x")])
    summary = check_contract(contract, out, {}, None)
    assert summary["num_failed"] == 1
    assert "1 of 8 rows, such as 1" in summary["warnings"][0]


def test_a_nan_in_the_report_fails_although_no_comparison_sees_it(
    tmp_path: Path, contract: Path
) -> None:
    contract.write_text(
        "report: {expectations: [{type: expect_column_values_to_be_between, "
        "column: loss.valid, min_value: 0, severity: warning}]}"
    )
    good = {"loss": {"valid": 2.5}}
    assert check_contract(contract, tmp_path, good, None)["num_failed"] == 0
    for value in (float("nan"), float("inf"), None):
        with pytest.raises(DataError, match=r"loss\.valid values must never be null"):
            check_contract(contract, tmp_path, {"loss": {"valid": value}}, None)


def test_a_missing_file_of_a_model_folder_is_found(tmp_path: Path, contract: Path) -> None:
    contract.write_text(
        "files: {expectations: [{type: expect_column_distinct_values_to_contain_set, column: path, "
        "value_set: [model/config.json], severity: critical}]}"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contain this set"):
        check_contract(contract, tmp_path / "empty", {}, None)
    (tmp_path / "empty" / "model").mkdir()
    (tmp_path / "empty" / "model" / "config.json").write_text("{}")
    assert check_contract(contract, tmp_path / "empty", {}, None)["num_failed"] == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("to_be_unique", "to_be_lucky"), "unknown expectation"),
        (("column: id", "column: ident"), "column 'ident' is neither in `columns`"),
        (("min_value: 2", "min_valve: 2"), "min_valve extra fields not permitted"),
        (("severity: warning", "severity: bad"), "Input should be 'critical', 'warning'"),
        (("documents/*", "../documents"), "must lie under the stage's output"),
        (("lengths", "sizes"), "tables.documents.sizes: Extra inputs are not permitted"),
        (("tables:", "tables: ]"), "not YAML"),
    ],
)
def test_a_wrong_contract_is_named_in_one_line(
    out: Path, contract: Path, change: tuple[str, str], error: str
) -> None:
    contract.write_text(DOCUMENTS.replace(*change))
    with pytest.raises(UserError) as raised:
        check_contract(contract, out, {}, None)
    assert error in raised.value.message
    assert "\n" not in raised.value.message


def test_a_column_the_table_lacks_is_named(out: Path, contract: Path) -> None:
    contract.write_text(DOCUMENTS.replace("[id, source, folder]", "[id, licence, folder]"))
    with pytest.raises(DataError, match="has no column 'licence'; has id, text, source, words"):
        check_contract(contract, out, {}, None)


def test_an_output_without_the_table_is_named(out: Path, contract: Path) -> None:
    contract.write_text(DOCUMENTS.replace("documents/*", "documens/*"))
    with pytest.raises(DataError, match=r"no Parquet folder matches 'documens/\*'"):
        check_contract(contract, out, {}, None)


def test_a_large_table_is_sampled_evenly_and_its_ids_are_all_compared(tmp_path: Path) -> None:
    write_documents(tmp_path, "a", [(f"id{i % 95}", "x") for i in range(61)])
    write_documents(tmp_path, "b", [(f"id{i % 95}", "x") for i in range(61, 100)])
    folders = [tmp_path / "documents" / name for name in "ab"]
    frames = read_frames(
        "documents", folders, columns=["id", "folder"], lengths=[], unique=["id"], max_rows=12
    )
    assert frames.every == 9
    assert list(frames.sample["id"]) == [f"id{i % 95}" for i in range(0, 100, 9)]
    assert list(frames.sample["folder"]) == ["a"] * 7 + ["b"] * 5
    assert frames.all_rows["id"].duplicated().sum() == 5
    assert "12 of 100 rows (every 9th" in frames.rule


def test_duplicates_outside_the_sample_are_found(
    tmp_path: Path, contract: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_frames, "__kwdefaults__", {"max_rows": 4})
    write_documents(tmp_path, "train", [(f"id{i}", "a text") for i in range(9)])
    write_documents(tmp_path, "test", [("id1", "a text"), ("id2", "a text")])
    with pytest.raises(DataError, match="4 of 11 rows"):
        check_contract(contract, tmp_path, {}, None)


TEXTS = """
tables:
  documents:
    path: documents/*
    digests: [text]
    expectations:
      - {type: expect_column_values_to_be_unique, column: text_digest, severity: critical}
"""


@pytest.mark.parametrize("max_rows", [4, 100])
def test_the_same_long_text_in_two_folders_is_found_by_its_digest(
    tmp_path: Path, contract: Path, monkeypatch: pytest.MonkeyPatch, max_rows: int
) -> None:
    monkeypatch.setattr(read_frames, "__kwdefaults__", {"max_rows": max_rows})
    contract.write_text(TEXTS)
    write_documents(tmp_path, "train", [(f"id{i}", f"{'long ' * 1000}{i}") for i in range(9)])
    write_documents(tmp_path, "test", [("id9", "a text")])
    assert check_contract(contract, tmp_path, {}, None)["num_failed"] == 0
    write_documents(tmp_path, "test", [("id9", f"{'long ' * 1000}7")])
    with pytest.raises(DataError, match=r"text_digest values must be unique.*: 2 of 10 rows"):
        check_contract(contract, tmp_path, {}, None)


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    write_documents(tmp_path, "a", [])
    frames = read_frames(
        "d",
        [tmp_path / "documents/a"],
        columns=["id"],
        lengths=["text"],
        unique=["id"],
        digests=["text"],
    )
    assert list(frames.sample.columns) == ["id", "text_num_chars", "text_digest"]
    assert frames.num_rows == 0


def test_an_expectation_drawn_as_a_table_is_told_in_words(
    out: Path, contract: Path, tmp_path: Path
) -> None:
    contract.write_text(
        DOCUMENTS
        + "      - {type: expect_column_quantile_values_to_be_between, column: text_num_chars, "
        "severity: warning, "
        "quantile_ranges: {quantiles: [0.5], value_ranges: [[90, 99]]}}\n"
    )
    (warning,) = check_contract(contract, out, {}, None)["warnings"]
    assert "'value_ranges': [[90, 99]]" in warning
    assert "'values': [13]" in warning


def test_report_names_are_joined_and_lists_left_out() -> None:
    frame = report_frames({"removed": {"short": 3}, "seconds": [1, 2], "name": "x"}).sample
    assert frame.to_dict("records") == [{"removed.short": 3, "name": "x"}]


def test_the_command_ends_with_the_exit_code_of_the_error(
    out: Path, contract: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    report.write_text("{}")
    assert main([str(contract), str(out), "--report", str(report)]) == 0
    assert "5 of 5 expectations hold" in capsys.readouterr().out
    write_documents(out, "test", [("id3", "again")])
    assert main([str(contract), str(out)]) == 65
    contract.write_text("tables: {}")
    assert main([str(contract), str(out)]) == 64
