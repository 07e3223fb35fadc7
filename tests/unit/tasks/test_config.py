from pathlib import Path

import pytest

from components.contract import STAGES
from components.errors import UserError
from tasks.config import (
    home_root,
    load_resources,
    load_settings,
    set_environment_defaults,
    without_password,
)
from tests.resources import resources, resources_yaml


def test_a_wrong_variable_is_named_as_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NUM_WORKERS", "0")
    with pytest.raises(UserError, match=r"^HEADRACE_NUM_WORKERS: .*greater than or equal to 1"):
        load_settings()


def test_a_wrong_resource_is_named_with_its_file(tmp_path: Path) -> None:
    write_resources(tmp_path, resources_yaml(num_ranks=0))
    with pytest.raises(UserError, match=r"^k8s/resources.yaml: default.num_ranks"):
        load_resources(tmp_path)


def write_resources(root: Path, text: str) -> None:
    (root / "k8s").mkdir()
    (root / "k8s" / "resources.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "key", "stage"),
    [
        (resources_yaml({"dpo": {"num_ranks": 2}}), "stages.dpo", "dpo"),
        (resources_yaml({"sft": {"num_ranks": 1}}, num_ranks=2), "default", "ingest"),
    ],
)
def test_several_ranks_are_refused_where_a_stage_runs_on_one(
    tmp_path: Path, text: str, key: str, stage: str
) -> None:
    write_resources(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_resources(tmp_path)
    assert caught.value.message == (
        f"k8s/resources.yaml: {key}.num_ranks is 2, but {stage} runs on 1 rank; "
        "only pretrain and sft run on several"
    )


def test_training_stages_may_have_several_ranks_also_by_a_default_that_hits_no_other(
    tmp_path: Path,
) -> None:
    one: dict[str, object] = {"num_ranks": 1}
    write_resources(
        tmp_path, resources_yaml({name: one for name in STAGES if name != "sft"}, num_ranks=4)
    )
    resources = load_resources(tmp_path)
    assert (resources.of("sft").num_ranks, resources.of("dpo").num_ranks) == (4, 1)


def test_a_stage_has_the_defaults_resources_but_for_those_it_states(tmp_path: Path) -> None:
    write_resources(tmp_path, resources_yaml({"sft": {"memory_gib": 7.5}}, cpu=3))
    of = load_resources(tmp_path).of
    assert of("sft") == resources(memory_gib=7.5, cpu=3)
    assert of("dpo") == resources(cpu=3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_nodes": 3, "num_nodes": 2}, "min_nodes 3 is above num_nodes 2"),
        ({"shared_memory_gib": 2.0}, "shared_memory_gib 2 is above memory_gib 0.5"),
        ({"queue": "No Such Name"}, "queue: "),
        ({"priority": "urgent"}, "priority: "),
    ],
)
def test_resources_that_cannot_be_are_refused_and_named(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    write_resources(tmp_path, resources_yaml({"pretrain": changes}))
    with pytest.raises(UserError, match=r"k8s/resources.yaml: stages.pretrain") as caught:
        load_resources(tmp_path)
    assert said in caught.value.message


def test_the_users_environment_wins_over_the_defaults(tmp_path: Path) -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://team"}
    set_environment_defaults(environ, tmp_path)
    assert environ["MLFLOW_TRACKING_URI"] == "http://team"
    assert environ["PREFECT_HOME"] == str(tmp_path / ".headrace" / "prefect")


@pytest.mark.parametrize(
    ("given", "address", "user"),
    [
        ("https://jane:pass%20word@h:4200/api", "https://h:4200/api", "jane:pass word"),
        ("http://h:4200/api", "http://h:4200/api", None),
        ("http://[nonsense", "http://[nonsense", None),
    ],
)
def test_a_password_in_prefects_address_goes_to_the_variable_that_prefect_has_for_it(
    tmp_path: Path, given: str, address: str, user: str | None
) -> None:
    environ = {"PREFECT_API_URL": given}
    set_environment_defaults(environ, tmp_path)
    assert environ["PREFECT_API_URL"] == address
    assert environ.get("PREFECT_API_AUTH_STRING") == user


def test_an_experiments_workspace_belongs_to_the_project_it_was_copied_from(tmp_path: Path) -> None:
    workspace = tmp_path / ".dvc" / "tmp" / "exps" / "abc"
    workspace.mkdir(parents=True)
    assert home_root(workspace) == tmp_path.resolve()
    assert home_root(tmp_path) == tmp_path.resolve()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:se@cret@host:80/a", "https://host:80/a"),
        (
            "asked http://u@host/a?b=c@d and s3://bucket/x",
            "asked http://host/a?b=c@d and s3://bucket/x",
        ),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("http://host?mail=a@b", "http://host?mail=a@b"),
    ],
)
def test_an_address_is_shown_without_user_and_password(text: str, shown: str) -> None:
    assert without_password(text) == shown
