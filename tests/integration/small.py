"""The real ten stages on a small corpus: a copy of the project with smaller numbers."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.section import read_yaml
from tests.integration.tasks import toy

ROOT = Path(__file__).resolve().parents[2]

SMALLER: dict[str, Any] = {
    "ingest.sources.0.location": "botocore==1.43.117 [st]*/*",
    "ingest.split": {"train": 0.8, "valid": 0.1, "test": 0.1},
    "ingest.ratings.num_prompts": {"train": 100, "valid": 20, "test": 20},
    "ingest.rows_per_shard": 500,
    "tokenize.vocab_size": 1024,
    "pretrain.num_steps": 12,
    "pretrain.evaluate_every_steps": 6,
    "pretrain.max_valid_tokens": 4096,
    "pretrain.checkpoints.every_steps": 4,
    "pretrain.schedule.warmup_steps": 2,
    "sft.num_steps": 6,
    "sft.max_valid_conversations": 40,
    "sft.schedule.warmup_steps": 2,
    "reward_model.compare_losses": False,
    "reward_model.prompts_per_batch": 4,
    "reward_model.prompts_per_micro_batch": 4,
    "reward_model.num_steps": 24,
    "reward_model.schedule.learning_rate": 6.0e-3,
    "reward_model.schedule.warmup_steps": 2,
    "dpo.rated.num_prompts": 60,
    "dpo.sampled.num_prompts": 20,
    "dpo.num_steps": 4,
    "dpo.schedule.warmup_steps": 2,
    "dpo.max_new_tokens": 24,
    "dpo.num_held_out_prompts": 10,
    "quantize.calibration_tokens": 4096,
    "quantize.bits.max_tokens": 4096,
    "quantize.task.num_items": 24,
    "evaluate.bits.max_tokens": 4096,
    "evaluate.ngram.order": 3,
    "evaluate.compressors.xz_preset": 1,
    "evaluate.compressors.zstd_level": 3,
    "evaluate.task.num_items": 32,
    "evaluate.preference.num_prompts": 10,
    "evaluate.judge.num_prompts": 10,
    "evaluate.judge.max_new_tokens": 24,
    "evaluate.judge.num_samples": 2,
}
"""Values that make the chain quick; what they give is only good for tests."""


NUM_WORKERS = 2
"""Fixed, for the last bits of a trained weight depend on how many threads add."""


def build(folder: Path) -> Path:
    """A git and DVC project in `folder` with the working tree's code and smaller params."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("components", "flows", "tasks", "k8s"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for key, value in SMALLER.items():
        set_value(params, key, value)
    yaml.dump(params, folder / "params.yaml")
    toy.run(folder, "git", "init", "-q")
    toy.init_dvc(folder)
    toy.commit(folder, "Begin")
    return folder


def headrace(folder: Path, *arguments: str) -> str:
    """What `headrace` printed; fails unless it succeeded."""
    return _run(folder, "tasks.cli", *arguments)


def dvc(folder: Path, *arguments: str) -> str:
    """What `dvc` printed; fails unless it succeeded."""
    return _run(folder, "dvc", *arguments)


def _run(folder: Path, module: str, *arguments: str) -> str:
    command = (sys.executable, "-m", module, *arguments)
    workers = {"HEADRACE_NUM_WORKERS": str(NUM_WORKERS)}
    return toy.run(folder, *command, timeout_s=1500, **workers).stdout


def digests(folder: Path) -> dict[str, str]:
    """DVC's digest of every stage's artifacts."""
    stages = read_yaml(folder / "dvc.lock")["stages"]
    return {
        name: next(out["md5"] for out in body["outs"] if out["path"] == f"artifacts/{name}")
        for name, body in stages.items()
    }


def set_value(params: Any, key: str, value: Any) -> None:
    """Set `a.b.0.c`; the key must exist, so that a renamed param is noticed."""
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in path:
        params = params[part]
    assert last in params, key
    params[last] = value


def change(folder: Path, key: str, value: Any) -> None:
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    set_value(params, key, value)
    yaml.dump(params, folder / "params.yaml")


def latest(folder: Path, stage: str) -> Path:
    """The run folder of the stage's last attempt."""
    runs = folder / "runs" / stage
    return runs / str(json.loads((runs / "latest.json").read_text())["key"])
