import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataError
from tasks.key import digest_tree, stage_key


def test_a_key_does_not_depend_on_the_order_of_params_or_deps() -> None:
    assert stage_key("s", {"a": 1, "b": 2}, {"x": "1", "y": "2"}) == stage_key(
        "s", {"b": 2, "a": 1}, {"y": "2", "x": "1"}
    )


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text()))
def test_a_key_changes_with_any_param(params: dict[str, object]) -> None:
    assert stage_key("s", params, {}) != stage_key("s", {**params, "new": 1}, {})


def test_equal_content_has_an_equal_digest_whatever_its_times(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").write_text("text")
    os.utime(tmp_path / "b" / "inner" / "file", (0, 0))
    assert digest_tree(tmp_path / "a") == digest_tree(tmp_path / "b")


def test_a_renamed_file_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    before = digest_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_tree(tmp_path) != before


def test_compiled_python_does_not_change_the_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = digest_tree(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert digest_tree(tmp_path) == before


def test_a_missing_dependency_is_the_datas_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: missing"):
        digest_tree(tmp_path / "gone")
