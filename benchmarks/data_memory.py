"""Memory and time of the data stages at one and at ten times the documents.

python -m benchmarks.data_memory --documents artifacts/ingest/documents

Each factor runs as its own project through the launcher, which samples the memory of all of a
stage's processes. Documents beyond the first copy have a quarter of their words drawn from the whole
corpus, so that they are neither duplicates nor near duplicates of what is there.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from components.shards import read_table

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("ingest", "clean", "dedup", "tokenize")
CODE = ("components", "flows", "tasks", "k8s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, default=Path("artifacts/ingest/documents"))
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--num-documents", type=int, default=20000, help="at factor 1")
    arguments = parser.parse_args()
    texts: list[str] = []
    for split in sorted(path.name for path in arguments.documents.iterdir()):
        texts += read_table(arguments.documents / split, columns=["text"])["text"].to_pylist()
    # Shuffled, for the split goes by content: a cut at the end would take a whole split.
    np.random.default_rng(0).shuffle(texts)
    texts = texts[: arguments.num_documents]
    figures = {}
    for factor in arguments.factors:
        with tempfile.TemporaryDirectory() as folder:
            figures[factor] = measure(Path(folder), texts, factor)
    first = arguments.factors[0]
    print(
        f"{'stage':>10} {'documents':>10} {'GiB':>7} {'seconds':>8} {'GiB, ratio':>11} {'s, ratio':>9}"
    )
    for stage in STAGES:
        for factor in arguments.factors:
            gib, seconds = figures[factor][stage]
            base_gib, base_s = figures[first][stage]
            print(
                f"{stage:>10} {len(texts) * factor:10,} {gib:7.2f} {seconds:8.1f} "
                f"{gib / base_gib:11.2f} {seconds / base_s:9.2f}"
            )


def measure(project: Path, texts: list[str], factor: int) -> dict[str, tuple[float, float]]:
    """Peak GiB and seconds of each data stage on `factor` times the documents."""
    for name in CODE:
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", project)
    with (project / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for index, text in enumerate(enlarged(texts, factor)):
            file.write(json.dumps({"id": str(index), "text": text}) + "\n")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["ingest"]["sources"] = [
        {"name": "corpus", "kind": "files", "location": "corpus.jsonl",
         "content": "documents", "licence": "Apache-2.0"}
    ]  # fmt: skip
    yaml.dump(params, project / "params.yaml")
    found = {}
    for stage in STAGES:
        done = subprocess.run(
            [sys.executable, "-m", "tasks.launch", stage],
            cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{stage} at {factor}x:\n{done.stdout[-2000:]}")
        key = json.loads((project / "runs" / stage / "latest.json").read_text())["key"]
        outcome = json.loads((project / "runs" / stage / key / "outcome.json").read_text())
        found[stage] = (outcome["peak_memory_gib"], outcome["elapsed_s"])
    return found


def enlarged(texts: list[str], factor: int) -> Iterator[str]:
    """The texts, then `factor - 1` variants of each, with a quarter of the words from elsewhere."""
    yield from texts
    rng = np.random.default_rng(0)
    pool = np.array([word for text in texts[::20] for word in text.split()], dtype=object)
    for _ in range(factor - 1):
        for text in texts:
            lines = []
            for line in text.split("\n"):
                words = np.array(line.split(), dtype=object)
                drawn = rng.random(len(words)) < 0.25
                words[drawn] = pool[rng.integers(0, len(pool), int(drawn.sum()))]
                lines.append(" ".join(words))
            yield "\n".join(lines)


if __name__ == "__main__":
    main()
