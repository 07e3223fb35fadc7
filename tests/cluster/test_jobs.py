"""Stages as Jobs on a real Kubernetes with Kueue: submitted, adopted, cancelled, and counted."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tasks.cluster.checks import quantity
from tests.cluster import projects
from tests.cluster.conftest import Place
from tests.integration.tasks import toy
from tests.integration.tasks.processes import wait_for


def repro(place: Place, *arguments: str, check: bool = True) -> str:
    done = toy.run(
        place.root, sys.executable, "-m", "dvc", "repro", *arguments, check=check,
        HEADRACE_FLOW_RUN="none", **place.variables,
    )  # fmt: skip
    return done.stdout


def start(place: Place, stage: str, **variables: str) -> "subprocess.Popen[str]":
    """`python -m tasks.launch` by itself, as its supervisor DVC would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.launch", stage], cwd=place.root, text=True,
        env=toy.environment() | place.variables | {"HEADRACE_FLOW_RUN": "none"} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def jobs(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = projects.get("jobs", "-n", place.namespace)["items"]
    return found


def is_all_gone(place: Place) -> bool:
    """No Job is there, and no pod: what has ended is still listed for a moment after its owner is gone."""
    return jobs(place) == [] == projects.get("pods", "-n", place.namespace)["items"]


def running_pod(place: Place) -> str:
    """The name of a pod whose stage has begun."""
    pods = projects.get("pods", "-n", place.namespace)["items"]
    for pod in pods:
        if pod["status"].get("phase") == "Running" and any(
            (place.root / "runs").glob(f"*/*/pods/{pod['metadata']['name']}/work/started")
        ):
            return str(pod["metadata"]["name"])
    return ""


def hold(place: Place) -> None:
    """Have stages stop halfway until `let_go`: step 1 of 2. At a signal they write a checkpoint there."""
    (place.root / "runs" / "hold").touch()


def let_go(place: Place) -> None:
    (place.root / "runs" / "hold").unlink()


def held_pod(place: Place) -> str:
    """The name of a pod whose stage has stopped halfway, and will write its checkpoint at a signal."""
    pod = running_pod(place)
    held = (place.root / "runs").glob(f"*/*/pods/{pod}/work/held")
    return pod if pod and any(held) else ""


def checkpoint_of(place: Place) -> int:
    """Steps that the source has done, by what it left."""
    (path,) = (place.root / "runs" / "source").glob("*/work/next_step")
    return int(path.read_text())


def assert_each_step_once(place: Place) -> None:
    """The first pod's step and the last one's: who went on, went on from the checkpoint."""
    assert re.findall(r"(\d/\d) steps", log_of(place)) == ["1/2", "2/2"]


def log_of(place: Place) -> str:
    (path,) = (place.root / "runs" / "source").glob("*/log.txt")
    return path.read_text()


def artifacts(root: Path) -> dict[str, str]:
    """What DVC recorded of each stage's artifact."""
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    return {name: stages[name]["outs"][0]["md5"] for name in stages}


def outcome_of(place: Place, stage: str) -> dict[str, Any]:
    (path,) = (place.root / "runs" / stage).glob("*/outcome.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_chain_runs_as_jobs_and_publishes_what_it_does_on_one_machine(
    place: Place, template: Path, tmp_path: Path
) -> None:
    said = repro(place)
    here = projects.copy(template, tmp_path / "here")
    toy.dvc(here, "repro")
    assert artifacts(place.root) == artifacts(here)
    assert [job["spec"]["ttlSecondsAfterFinished"] for job in jobs(place)] == [3600] * 4
    assert "join: 2/2 steps 100%" in said
    assert outcome_of(place, "join")["node"] == "dev-1"


def test_a_stage_that_has_not_changed_asks_nothing_of_the_cluster(place: Place) -> None:
    repro(place, "source")
    before = projects.num_requests(place.namespace)
    assert before > 0
    assert "didn't change" in repro(place, "source")
    assert projects.num_requests(place.namespace) == before


def test_a_killed_launch_leaves_the_job_running_and_the_next_one_adopts_it_and_its_log(
    place: Place,
) -> None:
    toy.set_param(place.root, "source", num_steps=30, step_s=0.1)
    hold(place)
    first = start(place, "source")
    pod = wait_for(lambda: running_pod(place))
    wait_for(lambda: job_record(place).get("log_bytes"))
    first.kill()
    before, _ = first.communicate()
    wait_for(lambda: is_held_after(place, 15))  # it went on, with nobody there to look
    assert running_pod(place) == pod
    let_go(place)
    second = start(place, "source")
    after, _ = second.communicate(timeout=240)
    assert second.returncode == 0, after
    assert [job["metadata"]["name"] for job in jobs(place)] == [pod.rsplit("-", 2)[0]]
    assert "adopted the Job" in after
    told, told_again = steps_in(before), steps_in(after)
    whole = steps_of_log(place)
    assert told == whole[: len(told)]
    # What the first told last it may not have noted: nothing is left out, and that is told twice.
    assert told_again == whole[len(whole) - len(told_again) :]
    assert len(whole) <= len(told) + len(told_again) < 2 * len(whole)


def is_held_after(place: Place, num_steps: int) -> bool:
    (path,) = (place.root / "runs" / "source").glob("*/metrics.jsonl")
    return f'"step": {num_steps - 1},' in path.read_text()


def steps_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if "/30 steps" in line]


def steps_of_log(place: Place) -> list[str]:
    return steps_in(log_of(place))


def job_record(place: Place) -> dict[str, Any]:
    """What the launcher keeps of the source's Job; empty before it does."""
    for path in (place.root / "runs" / "source").glob("*/job.json"):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {}


def hear(launch: "subprocess.Popen[str]", words: str) -> str:
    """The first line with `words` of what is said; fails with all of it if there is none."""
    said = []
    assert launch.stdout is not None
    for line in launch.stdout:
        said.append(line)
        if words in line:
            return line
    raise AssertionError("".join(said))


def test_two_launches_of_one_attempt_make_one_job(place: Place) -> None:
    hold(place)
    both = [start(place, "source") for _ in range(2)]
    wait_for(lambda: running_pod(place) and all(is_at_the_lock(place, one) for one in both))
    let_go(place)
    said = [one.communicate(timeout=240)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert len(jobs(place)) == 1
    assert not (place.root / "runs" / "twice.txt").exists()


def is_at_the_lock(place: Place, launch: "subprocess.Popen[str]") -> bool:
    """Whether it works on the source, or waits for whoever does."""
    (lock,) = (place.root / "runs" / "source").glob("*/.lock")
    files = Path(f"/proc/{launch.pid}/fd").iterdir()
    return any(os.path.realpath(file) == str(lock.resolve()) for file in files)


def test_an_interrupted_launch_cancels_its_job_after_a_checkpoint_and_the_next_one_goes_on(
    place: Place,
) -> None:
    hold(place)
    first = start(place, "source")
    wait_for(lambda: held_pod(place))
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 75, said
    assert "source was cancelled" in said
    assert checkpoint_of(place) == 1
    wait_for(lambda: is_all_gone(place))
    let_go(place)
    second = start(place, "source")
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert_each_step_once(place)
    assert toy.text_of(place.root, "source") == "s"


def test_a_terminated_launch_lets_go_of_its_job(place: Place) -> None:
    hold(place)
    first = start(place, "source")
    pod = wait_for(lambda: running_pod(place))
    first.terminate()
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 75
    assert "source: run it again to adopt it" in said
    assert running_pod(place) == pod


def test_a_stage_that_waits_says_for_what_and_its_place_in_the_queue(place: Place) -> None:
    projects.set_resources(place.root, "source", gpus=0, cpu=1.5)
    hold(place)
    first = start(place, "source")
    wait_for(lambda: running_pod(place))
    first.kill()
    first.wait()
    toy.set_param(place.root, "source", text="other")
    second = start(place, "source")
    line = hear(second, "insufficient")
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    assert "place 1 of 1; " in line
    assert "insufficient unused quota for cpu" in line


def test_a_stage_that_no_node_could_hold_is_refused_before_a_job_is_made(place: Place) -> None:
    nodes = projects.get("nodes")["items"]
    largest = max(quantity(node["status"]["allocatable"]["cpu"]) for node in nodes)
    projects.set_resources(place.root, "source", cpu=largest + 1)
    said = repro(place, "source", check=False)
    assert (
        f"user error: no node can hold source: it asks for {largest + 1:g} cores; "
        f"the largest has {largest:g} cores" in said
    )
    assert jobs(place) == []


def test_an_image_of_another_commit_is_refused_before_a_job_is_made(place: Place) -> None:
    other = place.variables | {"HEADRACE_IMAGE": "dev.local/headrace:other", "HEADRACE_DEV": "0"}
    said = toy.run(
        place.root, sys.executable, "-m", "tasks.launch", "source", check=False,
        HEADRACE_FLOW_RUN="none", **other,
    ).stdout  # fmt: skip
    assert "the image dev.local/headrace:other is not of this commit" in said
    assert jobs(place) == []
