"""What is refused before a Job is made, and that nothing else is."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from components.errors import UserError
from tasks.cluster.checks import (
    avoidable,
    kept_out,
    quantity,
    require_fit,
    require_image,
    require_volume,
)
from tasks.config import Settings
from tests.resources import resources

SUFFIXES = ("", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


@settings(max_examples=50)
@given(
    st.decimals(0, 10**6, places=3, allow_nan=False).map(lambda number: f"{number:f}")
    | st.integers(0, 10**9).map(str),
    st.sampled_from(SUFFIXES) | st.integers(-6, 9).flatmap(
        lambda exponent: st.sampled_from([f"e{exponent}", f"E{exponent}"])
    ),
)  # fmt: skip
def test_a_quantity_is_what_the_kubernetes_client_reads(number: str, suffix: str) -> None:
    assert quantity(number + suffix) == float(parse_quantity(number + suffix))


def git(folder: Path, *arguments: str) -> str:
    options = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with code and params, and one commit."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("components/a.py", "components/b c.py", "tasks/a.py", "params.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("1\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Begin")
    return folder


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "checkout"))


def of_image(image: str, **more: Any) -> Settings:
    return Settings(launcher="kubernetes", image=image, **more)


@pytest.mark.parametrize("registry", ["", "registry.example/team/", "registry.example:5000/"])
def test_an_image_of_this_commit_is_taken_by_a_whole_or_short_name_of_it(
    checkout: Path, registry: str
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    for tag in (commit, commit[:12], commit[:7]):
        require_image(checkout, of_image(f"{registry}headrace:{tag}"))


@pytest.mark.parametrize(
    "image",
    ["headrace:other", "headrace", "headrace:", "headrace:{commit:.6}", "registry:5000/headrace"],
)
def test_an_image_that_may_be_of_another_commit_is_refused(checkout: Path, image: str) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    name = image.format(commit=commit)
    with pytest.raises(UserError) as caught:
        require_image(checkout, of_image(name))
    assert caught.value.message == f"the image {name} is not of this commit, {commit[:12]}"
    assert "docker build" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("components/a.py", "components/a.py"),
        ("tasks/new.py", "tasks/new.py"),
        ("components/b c.py", "components/b c.py"),
    ],
)
def test_code_that_is_not_committed_is_in_no_image(checkout: Path, path: str, shown: str) -> None:
    tag = git(checkout, "rev-parse", "HEAD")
    (checkout / path).write_text("2\n")
    with pytest.raises(UserError) as caught:
        require_image(checkout, of_image(f"headrace:{tag}"))
    assert caught.value.message == f"{shown} is not committed, so no image has it"
    git(checkout, "add", "-A")
    with pytest.raises(UserError, match="is not committed"):
        require_image(checkout, of_image(f"headrace:{tag}"))
    git(checkout, "commit", "-qm", "Go on")
    with pytest.raises(UserError, match="is not of this commit"):
        require_image(checkout, of_image(f"headrace:{tag}"))


def test_what_no_image_takes_from_the_checkout_may_be_changed(checkout: Path) -> None:
    (checkout / "params.yaml").write_text("2\n")
    (checkout / "notes.txt").write_text("mine\n")
    require_image(checkout, of_image(f"headrace:{git(checkout, 'rev-parse', 'HEAD')}"))


@pytest.mark.parametrize(
    ("image", "more"),
    [
        ("headrace:other", {"dev": True}),
        ("registry:5000/headrace@sha256:" + "0" * 64, {}),
        ("headrace:tag@sha256:" + "0" * 64, {}),
    ],
)
def test_a_mounted_checkout_and_an_image_by_digest_are_for_the_pod_to_compare(
    checkout: Path, image: str, more: dict[str, Any]
) -> None:
    (checkout / "components/a.py").write_text("2\n")
    require_image(checkout, of_image(image, **more))


def test_without_an_image_or_a_repository_there_is_no_telling(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image for the stages' pods"):
        require_image(tmp_path, of_image(""))
    with pytest.raises(UserError, match="git rev-parse: fatal: not a git repository") as caught:
        require_image(tmp_path, of_image("headrace:1234567"))
    assert "\n" not in caught.value.message


def test_a_workspace_of_other_params_is_of_its_projects_commit(checkout: Path) -> None:
    workspace = checkout / ".headrace" / "experiments" / "w"
    workspace.mkdir(parents=True)
    require_image(workspace, of_image(f"headrace:{git(checkout, 'rev-parse', 'HEAD')}"))


def test_pods_see_only_what_is_on_the_shared_volume(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    project = volume / "a" / "project"
    project.mkdir(parents=True)
    require_volume(project, volume)
    require_volume(volume, volume)
    link = tmp_path / "link"
    link.symlink_to(volume)
    require_volume(link / "a", volume)
    require_volume(project, link)
    (volume / "away").symlink_to(tmp_path)
    for outside in (tmp_path, tmp_path / "volume-2", volume / "away"):
        with pytest.raises(UserError, match="is not on the shared volume"):
            require_volume(outside, volume)


def node(cpu: str, memory: str, gpus: int | None = None) -> dict[str, Any]:
    allocatable = {"cpu": cpu, "memory": memory, "ephemeral-storage": "1Ti"}
    if gpus is not None:
        allocatable["nvidia.com/gpu"] = str(gpus)
    return {"metadata": {"name": "n"}, "status": {"allocatable": allocatable}}


def standing(name: str, cpu: str) -> dict[str, Any]:
    """A node that is ready, and has no taint."""
    one = node(cpu, "64Gi") | {"spec": {}}
    one["metadata"]["name"] = name
    one["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return one


def taint(key: str, effect: str) -> dict[str, str]:
    return {"key": key, "value": "x", "effect": effect}


def test_a_stage_that_one_node_could_hold_fits() -> None:
    require_fit(
        [node("1", "1Gi"), node("8", "64Gi", 1)], "sft", resources(gpus=1, cpu=8, memory_gib=64)
    )
    require_fit([node("7910m", "32657292Ki")], "clean", resources(cpu=7.91, memory_gib=31))
    require_fit([node("1", "1Ti")], "clean", resources(cpu=1, memory_gib=1024))


def test_a_stage_that_no_node_could_hold_is_refused_with_what_is_short() -> None:
    nodes = [node("4", "8Gi"), node("2", "16Gi", 0), {"metadata": {}, "status": {}}]
    with pytest.raises(UserError) as caught:
        require_fit(nodes, "sft", resources(cpu=8, memory_gib=16, gpus=1))
    assert caught.value.message == (
        "no node can hold sft: it asks for 8 cores, 1 GPUs; the largest has 4 cores, 0 GPUs"
    )
    assert caught.value.hint == "lower it in k8s/resources.yaml: stages.sft"


def test_a_stage_that_asks_for_what_only_two_nodes_have_together_is_refused_in_these_words() -> (
    None
):
    nodes = [node("64", "8Gi"), node("2", "256Gi", 8)]
    with pytest.raises(UserError) as caught:
        require_fit(nodes, "sft", resources(cpu=8, memory_gib=64, gpus=1))
    assert caught.value.message == (
        "no node can hold sft: it asks for 8 cores, 64.0 GiB, 2.0 GiB of disk, 1 GPUs, "
        "and no single one has all of it"
    )


def test_a_stage_that_asks_for_more_scratch_than_any_disk_has_is_refused() -> None:
    small = node("64", "256Gi")
    small["status"]["allocatable"]["ephemeral-storage"] = "100Gi"
    require_fit([small], "sft", resources(cpu=8, memory_gib=64, scratch_gib=99))
    with pytest.raises(UserError, match=r"asks for 101\.0 GiB of disk; the largest has 100\.0 GiB"):
        require_fit([small], "sft", resources(cpu=8, memory_gib=64, scratch_gib=100))


def test_sick_nodes_are_avoided_where_another_could_hold_the_stage() -> None:
    large, small = standing("large", "8"), standing("small", "1")
    assert avoidable([large, small], ["large"], resources(cpu=1)) == ["large"]
    assert avoidable([large, small], ["large"], resources(cpu=2)) == []
    assert avoidable([large, small], ["large", "small"], resources(cpu=1)) == []
    assert avoidable([large, small], [], resources(cpu=1)) == []
    assert avoidable([large, small], ["gone"], resources(cpu=1)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda other: other["metadata"].update(labels={"headrace.dev/gpu-pool": "h200"}),
        lambda other: other["spec"].update(unschedulable=True),
        lambda other: other["status"].update(conditions=[{"type": "Ready", "status": "Unknown"}]),
        lambda other: other["spec"].update(taints=[taint("headrace.dev/unhealthy", "NoSchedule")]),
        lambda other: other["spec"].update(taints=[taint("control-plane", "NoSchedule")]),
    ],
    ids=["another pool", "cordoned", "not ready", "sick", "not for stages"],
)
def test_a_node_is_not_avoided_for_one_that_would_not_take_the_stage(change: Any) -> None:
    """The Job would wait for days for the other, and the one that failed once may be well again."""
    one, other = standing("one", "8"), standing("other", "8")
    assert avoidable([one, other], ["one"], resources()) == ["one"]
    change(other)
    assert avoidable([one, other], ["one"], resources()) == []


def test_taints_that_the_pods_tolerate_or_may_ignore_do_not_close_a_node() -> None:
    one, other = standing("one", "8"), standing("other", "8")
    other["spec"]["taints"] = [
        taint("headrace.dev/unhealthy", "PreferNoSchedule"),
        taint("headrace.dev/at-risk", "NoSchedule"),
    ]
    assert avoidable([one, other], ["one"], resources(time_limit_h=1)) == ["one"]
    assert avoidable([one, other], ["one"], resources(time_limit_h=48)) == []


def test_a_gang_avoids_a_node_only_if_the_others_have_room_for_all_of_it() -> None:
    nodes = [standing(name, "8") for name in ("a", "b", "c")]
    assert avoidable(nodes, ["a"], resources(cpu=8, num_nodes=2, min_nodes=2)) == ["a"]
    assert avoidable(nodes[:2], ["a"], resources(cpu=8, num_nodes=2, min_nodes=2)) == []
    assert avoidable(nodes[:2], ["a"], resources(cpu=4, num_nodes=2, min_nodes=2)) == ["a"]


def test_a_gpu_that_is_held_back_as_unhealthy_says_nothing_against_the_stage() -> None:
    """The device plugin takes it from what is allocatable until it is mended."""
    ill = standing("ill", "8")
    ill["status"]["capacity"] = {"nvidia.com/gpu": "8"}
    ill["status"]["allocatable"]["nvidia.com/gpu"] = "7"
    ill["spec"]["taints"] = [taint("headrace.dev/unhealthy", "NoSchedule")]
    asked = resources(gpus=8)
    require_fit([ill], "sft", asked)
    assert kept_out([ill], asked).startswith("1 of 1 nodes that could hold it are kept out as sick")
    assert avoidable([ill, standing("other", "8")], ["other"], asked) == []
    with pytest.raises(UserError, match="asks for 9 GPUs; the largest has 8 GPUs"):
        require_fit([ill], "sft", resources(gpus=9))


FITTING = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(0, 8))


def test_nodes_kept_out_are_counted_by_cause_among_those_that_could_hold_the_stage() -> None:
    def tainted(cause: str, cpu: str = "8") -> dict[str, Any]:
        taints = [{"key": "headrace.dev/unhealthy", "value": cause, "effect": "NoSchedule"}]
        return node(cpu, "64Gi") | {"spec": {"taints": taints}}

    well, small = (node(cpu, "64Gi") | {"spec": {}} for cpu in ("8", "1"))
    sick = [tainted("ecc"), tainted("xid"), tainted("ecc"), tainted("xid", cpu="1")]
    asked = resources(cpu=8, memory_gib=8)
    assert kept_out([well, small], asked) == ""
    assert kept_out([*sick, well], asked) == (
        "3 of 4 nodes that could hold it are kept out as sick: ecc (2), xid (1); "
        "`headrace nodes` says more"
    )


@settings(max_examples=50)
@given(st.lists(FITTING, max_size=4), FITTING)
def test_a_stage_is_refused_exactly_if_no_node_has_all_it_asks_for(
    nodes: list[tuple[int, int, int]], asked: tuple[int, int, int]
) -> None:
    cpu, memory_gib, gpus = asked
    wanted = resources(cpu=cpu, memory_gib=memory_gib, gpus=gpus)
    fits = any(has[0] >= cpu and has[1] >= memory_gib and has[2] >= gpus for has in nodes)
    try:
        require_fit([node(str(c), f"{m}Gi", g) for c, m, g in nodes], "sft", wanted)
    except UserError:
        assert not fits
    else:
        assert fits
