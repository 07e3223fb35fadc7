"""The real ten stages, end to end, on a small corpus: real flow, DVC, processes, MLflow registry.

The data stages' recorded digests hold on any machine. Those of the stages that train depend on how a
processor adds floats, so they are kept by a fingerprint of that; on a machine whose fingerprint is
not in the file the test is skipped, and `make accept` refuses. `make golden` records this machine.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.contract import STAGES
from components.gates.promotion import load_gates
from components.measure.ratio import ratio_with_error
from tasks.dag import read_dag
from tasks.dvc import changed_stages
from tasks.registry import ITEMS
from tests.integration import small
from tests.integration.tasks import toy
from tests.integration.tasks.processes import pods_of, wait_for

pytestmark = pytest.mark.timeout(1800)
DATA_STAGES = STAGES[: STAGES.index("pretrain")]
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "digests.json"
MODE = os.environ.get("GOLDEN", "")
"""Empty: compare what is known. `required`: fail where nothing is known. `record`: write."""


@pytest.fixture
def project(small_chain: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; DVC's cache and the artifacts come along."""
    return toy.copy(small_chain, tmp_path / "project")


def float_fingerprint() -> str:
    """Digest of the processor's kind and of a few steps of arithmetic of the kinds that training does.

    The arithmetic alone is not enough: processors that agreed in it have differed in sft's sums.
    """
    kind = sorted(
        line
        for line in set(Path("/proc/cpuinfo").read_text().splitlines())
        if line.startswith(("vendor_id", "cpu family", "model"))
    )
    kind.append(torch.backends.cpu.get_cpu_capability())
    torch.set_num_threads(small.NUM_WORKERS)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(512, 128, generator=generator) for _ in range(2))
    for _ in range(4):
        scores = torch.softmax(hidden @ weight.T / 11, dim=-1)
        hidden = torch.nn.functional.silu(scores @ hidden).exp().rsqrt()
    return hashlib.sha256("\n".join(kind).encode() + hidden.numpy().tobytes()).hexdigest()[:12]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_the_recorded_bytes(stage: str, request: pytest.FixtureRequest) -> None:
    machine = "any" if stage in DATA_STAGES else float_fingerprint()
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    known = golden.get(machine, {}).get(stage)
    if known is None and MODE != "record":
        reason = f"no digest of {stage} for floats like this machine's ({machine}); `make golden`"
        (pytest.fail if MODE == "required" else pytest.skip)(reason)
    if MODE:  # one stage may be enough
        folder = request.getfixturevalue("small_project")
        small.dvc(folder, "repro", stage)
    else:
        folder = request.getfixturevalue("small_chain")
    digest = small.digests(folder)[stage]
    if MODE == "record":
        golden.setdefault(machine, {})[stage] = digest
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(golden, indent=2, sort_keys=True) + "\n")
    else:
        assert digest == known


def test_every_stage_publishes_with_a_report_and_a_kept_contract_page(
    small_chain: Path,
) -> None:
    assert set(small.digests(small_chain)) == set(STAGES)
    for stage in STAGES:
        report = json.loads((small_chain / "reports" / f"{stage}.json").read_text())
        assert report["contract"]["num_expectations"] > 0, stage
        if stage in DATA_STAGES:  # a model of six steps rightly earns a warning
            assert report["contract"]["warnings"] == [], stage
        assert "</html>" in (small_chain / "reports" / stage / "contract.html").read_text(), stage


def test_the_registered_model_is_the_evaluated_one_and_answers_from_the_registry_alone(
    project: Path,
) -> None:
    data = small.digests(project)
    shutil.rmtree(project / "artifacts")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    (version,) = client.search_model_versions("name='headrace'")
    assert str(version.version) == "1"
    tags = version.tags
    assert tags["headrace.stage_key"] == small.latest(project, "evaluate").name
    assert {tags[f"headrace.data.{stage}"] for stage in STAGES} == set(data.values())
    head = toy.run(project, "git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    assert tags["headrace.git_commit"].startswith(head)
    assert small.headrace(project, "generate", "models:/headrace/1", "What is a topic for?").strip()


def test_what_a_version_keeps_of_each_test_item_adds_up_to_the_figures_that_gates_compare(
    small_chain: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{small_chain / 'mlflow.db'}")
    run_id = str(client.get_model_version("headrace", "1").run_id)
    kept = client.download_artifacts(run_id, ITEMS.as_posix(), str(tmp_path))
    items = json.loads(Path(kept).read_text())
    figures = json.loads((small_chain / "reports" / "evaluate.json").read_text())
    for name in load_gates(toy.ROOT / "gates.yaml").against_champion:
        figure, _, model = name.partition(".")
        values = items[figure]
        assert len(values["ids"]) == len(values[model]) > 1
        told = figures[figure][model], figures[f"{figure}_se"][model]
        assert ratio_with_error(values[model], values["sizes"]) == pytest.approx(told, abs=2e-6)


def test_a_registered_version_is_computed_again_bit_by_bit(project: Path) -> None:
    said = small.headrace(project, "reproduce", "models:/headrace/1", "--from", "quantize")
    assert said.count("  taken") == STAGES.index("quantize")
    assert said.count("  equal") == 2
    assert said.strip().endswith("headrace version 1: bit-equal")


def test_a_second_run_executes_no_stage_and_registers_nothing(small_chain: Path) -> None:
    said = small.headrace(small_chain, "run")  # in place: a copy's registry is another one
    assert "Running stage" not in said
    assert said.count("Cached") >= len(STAGES)
    assert "models:/headrace/1 is there already" in said


def test_tokenize_writes_the_same_bytes_with_one_worker_as_with_two(project: Path) -> None:
    before = small.digests(project)  # the other data stages' tests do it with less around them
    toy.run(
        project, sys.executable, "-m", "dvc", "repro", "-f", "-s", "tokenize",
        HEADRACE_NUM_WORKERS="1",
    )  # fmt: skip
    assert small.digests(project) == before


def test_a_changed_learning_rate_reruns_pretrain_and_what_follows_and_nothing_before(
    project: Path,
) -> None:
    small.change(project, "pretrain.schedule.learning_rate", 1e-3)
    said = small.dvc(project, "repro", "--dry")
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in said] == ["pretrain"]
    (project / "artifacts" / "pretrain" / "model" / "config.json").write_text("{}")  # as it would
    readers = {name for name, spec in read_dag(project).items() if "pretrain" in spec.inputs}
    assert "sft" in readers
    assert set(changed_stages(project)) == {"pretrain", *readers}


def test_pretrain_killed_with_9_is_tried_again_from_its_checkpoint_and_gives_the_same_digest(
    project: Path,
) -> None:
    before = small.digests(project)["pretrain"]
    command = [sys.executable, "-m", "tasks.cli", "stage", "pretrain", "--force"]
    workers = {"HEADRACE_NUM_WORKERS": str(small.NUM_WORKERS)}
    with (project / "runs" / "said.txt").open("w+") as said:
        flow = subprocess.Popen(
            command, cwd=project, env=toy.environment() | workers, stdout=said, stderr=said
        )
        # Of a run from the start: the copy has those of steps 8 and 12.
        checkpoint = small.latest(project, "pretrain") / "work" / "checkpoints" / "step-000000004"
        wait_for(checkpoint.exists)
        (trainer,) = pods_of(project)
        os.kill(trainer, signal.SIGKILL)
        code = flow.wait(300)
        said.seek(0)
        lines = said.read()
    assert code == 0, lines
    assert "infra error" in lines
    resumed = re.findall(r"going on from checkpoint (\d+)", lines)
    assert resumed in (["4"], ["8"], ["12"]), lines  # the signal may come later than meant
    assert small.digests(project)["pretrain"] == before
