"""The shape of the project, as docs/architecture.md states it."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import grimp
import pytest

from components import errors
from components.contract import STAGES
from components.params import PARAMS_OF, Params, load_params
from components.section import read_yaml

ROOT = Path(__file__).resolve().parents[2]

CANNOT_CHANGE_A_RESULT = {
    "components/__init__.py",
    "components/contract.py",  # types
    "components/errors.py",  # messages
    "components/metrics.py",  # what people see while it runs
    "components/section.py",  # reading and checking params
}


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("components", cache_dir=None)


def code_of(stage: str) -> set[str]:
    """The files that decide what a stage computes: all that `stage.py` imports, and its folder."""
    start = f"components.{stage}.stage"
    modules = {start, *imports().find_upstream_modules(start)}
    files = {path_of(module) for module in modules}
    own = f"components/{stage}/"
    empty = {file for file in files if (ROOT / file).stat().st_size == 0}
    return {file for file in files - CANNOT_CHANGE_A_RESULT - empty if not file.startswith(own)} | {
        own.rstrip("/")
    }


def path_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def dvc_stages() -> dict[str, dict[str, list[str]]]:
    return read_yaml(ROOT / "dvc.yaml")["stages"]


def test_the_stages_have_one_list_everywhere() -> None:
    folders = {path.parent.name for path in (ROOT / "components").glob("*/stage.py")}
    assert set(STAGES) == set(dvc_stages()) == set(PARAMS_OF) == folders
    assert tuple(dvc_stages()) == STAGES
    assert set(read_yaml(ROOT / "params.yaml")) == {"seed", *STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_dvc_stage_has_the_one_shape(stage: str) -> None:
    body = dvc_stages()[stage]
    assert set(body) == {"cmd", "deps", "params", "outs", "metrics"}
    assert body["cmd"] == f"python -m tasks.launch {stage}"
    assert body["params"] == ["seed", stage]
    assert body["outs"] == [f"artifacts/{stage}", f"reports/{stage}"]
    assert body["metrics"] == [f"reports/{stage}.json"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_dvc_stage_depends_on_the_code_it_runs_and_on_no_other(stage: str) -> None:
    code = {dep for dep in dvc_stages()[stage]["deps"] if dep.startswith("components/")}
    assert code == code_of(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_a_dvc_stage_depends_on_the_artifacts_it_reads_and_on_no_others(stage: str) -> None:
    source = "".join(
        path.read_text() for path in sorted((ROOT / "components" / stage).rglob("*.py"))
    )
    read = set(re.findall(r"""inputs\[["'](\w+)["']\]""", source))
    deps = {
        dep.split("/")[1] for dep in dvc_stages()[stage]["deps"] if dep.startswith("artifacts/")
    }
    assert deps == read


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_run_function_and_a_data_contract(stage: str) -> None:
    source = (ROOT / "components" / stage / "stage.py").read_text()
    assert re.search(
        r"^def run\(\s*params: \w+Params, io: StageIO, sink: Sink,?\s*\) -> Report:", source, re.M
    )
    assert (ROOT / "components" / stage / "contract.yaml").is_file()


def test_params_yaml_is_valid_and_the_twin_has_no_defaults_at_its_top() -> None:
    load_params(ROOT / "params.yaml")
    assert all(field.is_required() for field in Params.model_fields.values())


def test_each_error_kind_has_its_exit_code_in_the_docs() -> None:
    table = (ROOT / "docs" / "operations.md").read_text()
    for code, kind in errors.KIND_OF_EXIT_CODE.items():
        assert re.search(rf"\| {code} \| {kind} \|", table), (code, kind)


def test_the_readme_names_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_no_source_file_needs_a_second_name() -> None:
    long = {
        str(path.relative_to(ROOT)): length
        for folder in ("components", "tasks", "flows")
        for path in (ROOT / folder).rglob("*.py")
        if (length := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def test_importing_a_module_starts_nothing() -> None:
    for module in ("tasks.launch", "tasks.pod", "tasks.cli", "tasks.dvc", "components.params"):
        importlib.import_module(module)


UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_no_artifact_is_loaded_with_pickle() -> None:
    """Neither by name, nor by a library that falls back on it unless told not to."""
    files = [
        file for name in ("components", "tasks", "flows") for file in (ROOT / name).rglob("*.py")
    ]
    assert len(files) > 100
    found = [f"{file.relative_to(ROOT)}: {what}" for file in files for what in unpicklings(file)]
    assert found == []


def unpicklings(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [name for name in names if name.split(".")[0] in UNPICKLERS]
        if isinstance(node, ast.Call):
            call = ast.unparse(node)
            if call.startswith(("torch.load(", "torch.save(")):
                found.append(call)
            if call.startswith(("np.load(", "np.save(")) and "allow_pickle=False" not in call:
                found.append(call)
            if call.startswith("AutoModel") and "use_safetensors=True" not in call:
                found.append(call)
    return found
