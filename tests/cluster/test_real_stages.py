"""The real stages as Jobs: preempted and resumed, on two nodes, on as many as the quota allows."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from components.train.parallel import operators_folder
from tests import floors
from tests.cluster import projects
from tests.cluster.conftest import Place, new_root
from tests.cluster.held_training import (
    HELD_AT,
    checkpoints,
    hold,
    let_go,
    put_waits_in,
    wait_until_held,
)
from tests.cluster.test_jobs import jobs, start
from tests.integration import small
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for
from tests.resources import DEFAULT

NUM_STEPS = 40
pytestmark = pytest.mark.timeout(900)  # two cores compile, import torch and train
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HEADRACE_NUM_WORKERS": "1"}
POD: dict[str, object] = {"cpu": 0.9, "memory_gib": 3.0, "shared_memory_gib": 0.5, "grace_s": 40}
"""Two fit the quota of two cores."""
NEIGHBOUR = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process of a pod has no default
time.sleep(900)
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real project on a small corpus with its pretrain done here, undisturbed, on one thread."""
    root = small.build(tmp_path_factory.mktemp("small") / "project")
    put_waits_in(root)
    floors.write_without(root / "components" / "preflight" / "skus.yaml")
    small.change(root, "pretrain.num_steps", NUM_STEPS)
    small.change(root, "pretrain.batch.rows_per_micro_batch", 2)  # one for each of two ranks
    resources = {"default": DEFAULT | POD, "stages": {}}
    (root / "k8s" / "resources.yaml").write_text(json.dumps(resources))
    toy.commit(root, "Train a little longer")
    toy.run(
        root, sys.executable, "-m", "dvc", "repro", "pretrain", timeout_s=600,
        HEADRACE_FLOW_RUN="none", **ONE_THREAD,
    )  # fmt: skip
    return root


@pytest.fixture
def place(namespace: str, trained: Path) -> Iterator[Place]:
    """A copy of the project with everything but the pretrain, on the namespace's volume."""
    root = new_root(namespace)
    shutil.copytree(trained, root, symlinks=True)
    for path in ("artifacts/pretrain", "runs/pretrain"):
        shutil.rmtree(root / path)
    operators = root / ".headrace" / "operators"
    if operators_folder().exists():  # compiled on this machine: a minute saved
        shutil.copytree(operators_folder(), operators / "headrace", dirs_exist_ok=True)
    yield Place(root, namespace)
    projects.kubectl("delete", "jobs", "--all", "-n", namespace, "--cascade=foreground")
    projects.remove(root)


def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "artifacts" / "pretrain" / "model" / "model.safetensors")


def assert_same(place: Place, trained: Path) -> None:
    found, want = weights(place.root), weights(trained)
    assert found.keys() == want.keys()
    assert all(torch.equal(found[name], want[name]) for name in want)


def assert_near(place: Place, trained: Path) -> None:
    """Equal but for the order in which ranks add: every step's loss, and the weights as a whole.

    Adam divides by the size of a gradient, so one of nearly nothing may move a single weight either
    way; 0.0003 nats and 0.15 % were seen.
    """
    found, want = losses(place.root), losses(trained)
    assert sorted(found) == sorted(want) == list(range(1, NUM_STEPS + 1))
    assert max(abs(found[step] - want[step]) for step in want) < 0.002
    there, here = weights(place.root), weights(trained)
    apart = sum(float((there[name] - here[name]).square().sum()) for name in here)
    assert apart < 0.01**2 * sum(float(value.square().sum()) for value in here.values())


def losses(root: Path) -> dict[int, float]:
    """The loss of each step, in nats."""
    (path,) = (root / "runs" / "pretrain").glob("*/metrics.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        entry["step"]: entry["metrics"]["train/loss_nats"]
        for entry in entries
        if "train/loss_nats" in entry.get("metrics", {})
    }


def told(place: Place) -> list[str]:
    return [
        text
        for path in (place.root / "runs" / "pretrain").glob("*/job.json")
        for _, text in (json.loads(path.read_text()) if path.stat().st_size else {"history": []})[
            "history"
        ]
    ]


def way(place: Place) -> list[str]:
    """The Job's states as they were told, and what else was."""
    return [text.split(":")[0].split(" on ")[0] for text in told(place)]


def occupy(place: Place, name: str, cpu: str, priority: str) -> None:
    """Another team's Job in the same queue, until it is deleted."""
    job = yaml.safe_load((place.root / "k8s" / "job.yaml").read_text().split("\n---\n")[0])
    job["metadata"] |= {"name": name, "namespace": place.namespace}
    labels = {"queue-name": "data", "priority-class": priority}
    job["metadata"]["labels"] = {f"kueue.x-k8s.io/{key}": value for key, value in labels.items()}
    job["spec"] |= {"completions": 1, "parallelism": 1}
    job["spec"].pop("podFailurePolicy")
    pod = job["spec"]["template"]["spec"]
    pod.pop("initContainers")
    pod["securityContext"]["runAsUser"] = projects.UID
    (container,) = pod["containers"]
    container |= {
        "image": projects.IMAGE, "command": ["python", "-c", NEIGHBOUR],
        "resources": {"requests": {"cpu": cpu, "memory": "64Mi", "ephemeral-storage": "1Mi"}},
    }  # fmt: skip
    projects.apply([job])


def test_the_data_stages_give_the_bytes_of_one_machine_on_two(place: Place, trained: Path) -> None:
    names = ("ingest", "clean", "dedup", "tokenize")
    want = small.digests(place.root)
    (place.root / "dvc.lock").unlink()
    shutil.rmtree(place.root / ".dvc" / "cache")
    for folder in ("artifacts", "runs", "reports"):
        shutil.rmtree(place.root / folder)
    for name in names:
        projects.set_resources(place.root, name, num_nodes=2)
    said = toy.run(
        place.root, sys.executable, "-m", "dvc", "repro", "tokenize", timeout_s=600,
        HEADRACE_FLOW_RUN="none", **place.variables,
    ).stdout  # fmt: skip
    found = small.digests(place.root)
    assert {name: found[name] for name in names} == {name: want[name] for name in names}, said
    # Of their pods those are listed no more that the leader did not wait for.
    assert [job["spec"]["parallelism"] for job in jobs(place)] == [2] * len(names)


def test_a_preempted_training_writes_its_checkpoint_waits_and_ends_with_the_same_bits(
    place: Place, trained: Path
) -> None:
    projects.set_resources(place.root, priority="background", cpu=1.5)
    hold(place.root)
    process = start(place, "pretrain")
    wait_until_held(place.root)
    occupy(place, "urgent", "1", "production")
    wait_for(lambda: f"step-{HELD_AT:09d}" in checkpoints(place.root), 120)
    wait_for(lambda: "preempted" in way(place) and phases_of_pretrain(place) == [], 120)
    let_go(place.root)
    projects.kubectl("delete", "job", "urgent", "-n", place.namespace)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert_same(place, trained)
    states = way(place)
    preempted, resumed = states.index("preempted"), len(states) - 1 - states[::-1].index("running")
    assert states.index("running") < preempted < resumed
    assert any("Preempted" in text and "InClusterQueue" in text for text in told(place))
    assert re.findall(r"going on from checkpoint (\d+)", said) == [str(HELD_AT)]
    (job,) = [one for one in jobs(place) if one["metadata"]["name"].startswith("pretrain")]
    assert "failed" not in job["status"]  # the preemption cost no retry
    assert job["metadata"]["name"].endswith("-a1")


def test_a_training_preempted_while_it_checkpoints_goes_on_from_the_one_before_to_the_same_bits(
    place: Place, trained: Path
) -> None:
    hold(place.root)
    hold(place.root, "hold-last-checkpoint")
    projects.set_resources(place.root, priority="background", cpu=1.5, grace_s=6)
    process = start(place, "pretrain")
    wait_until_held(place.root)
    occupy(place, "urgent", "1", "production")
    half = f".part-{HELD_AT:09d}"
    wait_for(lambda: half in checkpoints(place.root), 120)
    wait_for(lambda: phases_of_pretrain(place) == [], 120)  # the grace is over, in its midst
    assert half in checkpoints(place.root)
    let_go(place.root, "hold-last-checkpoint")
    let_go(place.root)
    projects.kubectl("delete", "job", "urgent", "-n", place.namespace)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert_same(place, trained)
    (resumed_at,) = re.findall(r"going on from checkpoint (\d+)", said)
    assert 0 < int(resumed_at) < HELD_AT
    assert not [name for name in checkpoints(place.root) if name.startswith(".part-")]
    (job,) = [one for one in jobs(place) if one["metadata"]["name"].startswith("pretrain")]
    assert "failed" not in job["status"]
    assert job["metadata"]["name"].endswith("-a1")


def phases_of_pretrain(place: Place) -> list[str]:
    """Of its pods that are there."""
    pods = projects.get("pods", "-n", place.namespace, "-l", "headrace.dev/stage=pretrain")
    return [pod["status"]["phase"] for pod in pods["items"]]


def test_two_nodes_train_to_what_one_does(place: Place, trained: Path) -> None:
    projects.set_resources(place.root, "pretrain", num_nodes=2, min_nodes=2)
    hold(place.root)
    process = start(place, "pretrain")
    wait_until_held(place.root)
    assert len(rank_processes()) == 2
    let_go(place.root)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert_near(place, trained)


def test_a_rank_that_dies_takes_the_gang_along_and_the_next_attempt_goes_on(
    place: Place, trained: Path
) -> None:
    projects.set_resources(place.root, "pretrain", num_nodes=2, min_nodes=2)
    hold(place.root)
    process = start(place, "pretrain")
    wait_until_held(place.root)
    victim = next(pid for pid, text in rank_processes().items() if "\nRANK=1" in text)
    os.kill(victim, signal.SIGKILL)
    # The other, which is held, knows nothing of it.
    wait_for(lambda: "Failed" in phases_of_pretrain(place), 120)
    let_go(place.root)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 75, said
    assert "infra error" in said
    again = start(place, "pretrain")
    said, _ = again.communicate(timeout=280)
    assert again.returncode == 0, said
    assert "going on from checkpoint" in said
    assert_near(place, trained)


def test_an_elastic_training_begins_with_what_the_quota_has_and_grows_at_its_next_admission(
    place: Place, trained: Path
) -> None:
    projects.set_resources(place.root, "pretrain", num_nodes=2, min_nodes=1)
    occupy(place, "neighbour", "1", "research")
    hold(place.root)
    process = start(place, "pretrain")
    wait_until_held(place.root)
    assert job_of(place)["spec"]["parallelism"] == len(rank_processes()) == 1
    # Its quota is free once its Workload is gone, and that goes after the Job.
    projects.kubectl("delete", "job", "neighbour", "-n", place.namespace, "--cascade=foreground")
    readmit(place)
    wait_for(lambda: job_of(place)["spec"]["parallelism"] == 2, 120)
    wait_for(lambda: len(rank_processes()) == 2, 120)
    let_go(place.root)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert job_of(place)["spec"]["parallelism"] == 2
    assert said.count("going on from checkpoint") == 1
    assert_near(place, trained)


def job_of(place: Place) -> dict[str, Any]:
    (job,) = [one for one in jobs(place) if one["metadata"]["name"].startswith("pretrain")]
    return job


def readmit(place: Place) -> None:
    """Have Kueue evict the training's Workload, and take it in again while its pod may still write."""
    uid = job_of(place)["metadata"]["uid"]
    own = ("-n", place.namespace, "-l", f"kueue.x-k8s.io/job-uid={uid}")
    (workload,) = projects.get("workloads", *own)["items"]
    name = workload["metadata"]["name"]
    change = ("patch", "workload", name, "-n", place.namespace, "--type=merge", "-p")
    projects.kubectl(*change, '{"spec":{"active":false}}')
    wait_for(lambda: "admission" not in status_of(place, name), 90)
    projects.kubectl(*change, '{"spec":{"active":true}}')
    wait_for(lambda: "admission" in status_of(place, name), 90)


def status_of(place: Place, workload: str) -> dict[str, Any]:
    status: dict[str, Any] = projects.get("workload", workload, "-n", place.namespace)["status"]
    return status


def rank_processes() -> dict[int, str]:
    """The stage's processes below torchrun, with their environments."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            variables = (entry / "environ").read_bytes().replace(b"\0", b"\n").decode()
        except OSError:
            continue
        is_rank = "-m tasks.pod pretrain" in command and "torch.distributed.run" not in command
        if is_rank and "\nRANK=" in f"\n{variables}":
            found[int(entry.name)] = variables
    return found
