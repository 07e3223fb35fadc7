from pathlib import Path

from ruamel.yaml import YAML

from tasks.plan import Planned, differences, table, unwatched_sources
from tests.integration.small import ROOT


def test_each_changed_param_and_file_is_one_line() -> None:
    asked = {"params": {"a": {"b": 1, "c": 2}, "gone": 3}, "code": {"x.py": "1", "y.py": "2"}}
    now = {"params": {"a": {"b": 1, "c": 5}, "new": [1]}, "code": {"x.py": "9", "z.py": "3"}}
    assert differences(asked, now) == [
        "param a.c: 2 -> 5",
        "param gone: 3 -> null",
        "param new: null -> [1]",
        "code x.py: changed",
        "code y.py: removed",
        "code z.py: new",
    ]


def test_the_table_cuts_long_lists_and_sums_what_it_would_take() -> None:
    planned = [
        Planned("clean", "run", tuple(f"code {n}.py: changed" for n in range(7)), 61.0),
        Planned("dedup", "follow", ("after clean",), None),
        Planned("tokenize", "cached", (), 12.0),
    ]
    lines = table(planned).splitlines()
    assert lines[0].split() == ["clean", "run", "61", "s", "code", "0.py:", "changed"]
    assert "and 3 more: headrace plan --json" in lines[4]
    assert lines[-1] == "2 of 3 stages to run; they took 61 s"


def test_local_files_that_dvc_does_not_watch_are_named(tmp_path: Path) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    source = {"name": "mine", "kind": "files", "location": "data/mine/*.txt",
              "content": "documents", "licence": "own"}  # fmt: skip
    params["ingest"]["sources"].append(source)
    yaml.dump(params, tmp_path / "params.yaml")
    dag = yaml.load(ROOT / "dvc.yaml")
    yaml.dump(dag, tmp_path / "dvc.yaml")
    (line,) = unwatched_sources(tmp_path)
    assert line.startswith("source mine: DVC does not see when data/mine/*.txt changes")
    dag["stages"]["ingest"]["deps"].append("data/mine")
    yaml.dump(dag, tmp_path / "dvc.yaml")
    assert unwatched_sources(tmp_path) == []
