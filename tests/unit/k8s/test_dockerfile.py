"""The Dockerfile, read: no engine builds it here. tests/cluster/dockerfile_in_debootstrap.py runs it."""

import importlib.util
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions

import grimp
import pytest
from packaging.utils import canonicalize_name

from tests.dockerfile import Stage, assignments, expanded, instructions, stages
from tests.manifests import (
    ROOT,
    containers_of,
    name_of,
    objects_of,
    pod_of,
    workloads,
)

IMAGES = ("control", "gpu")
CONTROL_PLANE = {"prefect", "dvc", "mlflow", "kubernetes"}
KNOWN = {"ARG", "CMD", "COPY", "ENV", "FROM", "LABEL", "RUN", "USER", "WORKDIR"}


@cache
def file() -> tuple[dict[str, str], dict[str, Stage]]:
    arguments, found = stages(ROOT / "Dockerfile")
    return arguments, {stage.name: stage for stage in found}


def lineage(name: str) -> list[Stage]:
    """The stage and those it is built on, the first one first."""
    by_name = file()[1]
    found = [by_name[name]]
    while found[0].parent in by_name:
        found.insert(0, by_name[found[0].parent])
    return found


def packages(lock: str) -> dict[str, str]:
    """Name: version and hashes."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    pinned = re.findall(
        r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==([^\n]+(?:\n    --hash[^\n]+)+)", text, re.M
    )
    return dict(pinned)


def test_every_image_is_pinned_or_a_stage_of_the_file() -> None:
    arguments, by_name = file()
    outside = {stage.parent for stage in by_name.values()} - set(by_name)
    assert outside == {arguments["BASE"]}
    assert re.fullmatch(r"[\w./-]+:[\w.-]+(@sha256:[0-9a-f]{64})?", arguments["BASE"])
    assert not arguments["BASE"].endswith(":latest")
    copied = {
        one.flags["from"] for stage in by_name.values() for one in stage.of("COPY") if one.flags
    }
    assert copied <= set(by_name)


def test_only_instructions_that_fetch_nothing_by_address_are_used() -> None:
    found = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert {one.verb for one in found} == KNOWN
    assert [one.text for one in found if re.search(r"https?://|curl |wget ", one.text)] == []


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_ends_as_a_user_without_rights(image: str) -> None:
    last = [one for stage in lineage(image) for one in stage.of("USER")]
    assert [one.text for one in last] == ["1000:1000"]
    after = lineage(image)[-1].instructions
    after = after[[one.verb for one in after].index("USER") :]
    assert {one.verb for one in after} <= {"USER", "CMD", "ENTRYPOINT"}
    manifests = {
        pod_of(one)["securityContext"]["runAsUser"]
        for one in workloads(objects_of("gpu"))
        if name_of(one) in ("prefect", "mlflow", "flows", "node-controller")
    }
    assert manifests == {1000}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_of_which_commit_it_is(image: str) -> None:
    values = {"COMMIT": "c0ffee"}
    stage = lineage(image)[-1]
    (label,), environments = stage.of("LABEL"), stage.of("ENV")
    assert assignments(label, values)["org.opencontainers.image.revision"] == "c0ffee"
    assert {"HEADRACE_COMMIT": "c0ffee"}.items() <= assignments(environments[-1], values).items()
    # An argument counts from its line on, and a changed commit must not build the packages again.
    verbs = [one.verb for one in stage.instructions]
    assert verbs.index("ARG") > max(i for i, verb in enumerate(verbs) if verb in ("RUN", "COPY"))


def test_a_build_without_a_commit_ends() -> None:
    (clone,) = (one for one in file()[1]["source"].of("RUN") if "git clone" in one.text)
    assert "${COMMIT:?" in clone.text
    assert 'test "$(git -C /app rev-parse HEAD)" = "${COMMIT}"' in clone.text


@pytest.mark.parametrize("image", IMAGES)
def test_code_is_imported_from_the_image_and_never_from_the_folder_it_runs_in(image: str) -> None:
    values: dict[str, str] = {}
    for stage in lineage(image):
        for one in stage.of("ENV"):
            values |= assignments(one, values)
    assert values["PYTHONPATH"] == "/app"
    assert values["PYTHONSAFEPATH"] == "1"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = set()
    for stage in file()[1].values():
        for one in stage.of("COPY"):
            if not one.flags:
                copied |= set(one.words[:-1])
            elif one.flags["from"] == "source":
                for word in one.words[:-1]:
                    assert (ROOT / word.removeprefix("/app").lstrip("/")).is_dir()
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_each_installation_by_apt_leaves_no_lists_and_takes_no_suggestions() -> None:
    found = [
        one.text for stage in file()[1].values() for one in stage.of("RUN") if "apt-get" in one.text
    ]
    assert len(found) == 5
    for text in found:
        assert re.fullmatch(
            r"apt-get update && apt-get install -y --no-install-recommends [a-z0-9.+ -]+"
            r"&& rm -rf /var/lib/apt/lists/\*",
            text,
        )


def test_packages_are_installed_by_hash_with_the_uv_of_the_makefile() -> None:
    (version,) = re.findall(
        r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
    )
    installer = file()[1]["installer"]
    assert [one.text for one in installer.of("ARG")] == [f"UV_VERSION={version}"]
    installs = [
        one.text
        for stage in file()[1].values()
        for one in stage.of("RUN")
        if "uv pip install" in one.text
    ]
    assert len(installs) == 3
    assert all("--require-hashes" in text and "--no-deps" in text for text in installs)


def test_the_gpu_image_has_the_packages_of_the_other_without_the_control_plane() -> None:
    everything, gpu = packages("requirements.lock"), packages("requirements-gpu.lock")
    assert len(gpu) > 100
    assert {name: pin for name, pin in gpu.items() if everything.get(name) != pin} == {}
    assert not CONTROL_PLANE & set(gpu)
    assert set(everything) >= CONTROL_PLANE


def test_the_gpu_image_has_every_package_that_a_stage_imports() -> None:
    graph = grimp.build_graph("components", "tasks", include_external_packages=True, cache_dir=None)
    start = {name for name in graph.modules if name.startswith("components.")} | {"tasks.pod"}
    needed = set(start)
    for name in start:
        needed |= graph.find_upstream_modules(name)
    outside = {name.partition(".")[0] for name in needed} - {"components", "tasks"}
    outside -= sys.stdlib_module_names
    assert {"torch", "pyarrow", "pydantic"} <= outside
    assert not CONTROL_PLANE & outside
    installed, there = packages_distributions(), set(packages("requirements-gpu.lock"))
    from_lock = {name: {canonicalize_name(one) for one in installed[name]} for name in outside}
    assert [name for name, sources in from_lock.items() if not sources & there] == []


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_programs_of_the_manifests_are_modules_of_the_image() -> None:
    programs = {
        container["command"][2]
        for one in workloads(objects_of("gpu"))
        for container in containers_of(pod_of(one))
        if container.get("command", [""])[0] == "python"
    }
    assert {"flows.deployments", "prefect", "mlflow"} <= programs
    assert [name for name in programs if not is_module(name)] == []


def test_an_argument_is_filled_in_where_it_is_named() -> None:
    assert expanded("${A}-$B-${C}", {"A": "1", "B": "2"}) == "1-2-${C}"
