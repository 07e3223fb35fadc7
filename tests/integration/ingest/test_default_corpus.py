"""The corpus that params.yaml names, whole."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from components.contract import Report, StageIO
from components.ingest.params import IngestParams
from components.ingest.stage import run
from components.metrics import QuietSink
from components.schemas import SPLITS
from components.section import read_yaml
from components.shards import read_table

PARAMS = read_yaml(Path(__file__).parents[3] / "params.yaml")
REWARDS = np.array([1, 0.5, -1, -1, -1.5, -3])  # of the six categories, DPRM Table 1


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    root = tmp_path_factory.mktemp("ingest")
    folders = [root / name for name in ("out", "work", "reports", "cache")]
    for folder in folders:
        folder.mkdir()
    params = IngestParams.model_validate(PARAMS["ingest"])
    io = StageIO({}, *folders, seed=PARAMS["seed"], num_workers=2)
    return io.out, run(params, io, QuietSink())


def test_every_operation_is_a_document(ingested: tuple[Path, Report]) -> None:
    out, report = ingested
    assert sum(report["num_documents"].values()) == 21_440
    assert report["num_empty_pages"] == 0
    assert 26e6 < report["num_chars"] < 29e6
    test = read_table(out / "documents" / "test")
    assert 760 < test.num_rows < 950
    rows = test.select(["title", "text"]).to_pylist()
    assert all(row["text"].startswith(row["title"]) for row in rows)


def test_no_text_lies_on_both_sides(ingested: tuple[Path, Report]) -> None:
    out, _ = ingested
    seen: dict[str, str] = {}
    for split in SPLITS:
        for text in read_table(out / "documents" / split, ["text"])["text"].to_pylist():
            key = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
            assert seen.setdefault(key, split) == split


def test_questions_name_what_they_ask_for_and_answers_are_short(
    ingested: tuple[Path, Report],
) -> None:
    out, _ = ingested
    settings = PARAMS["ingest"]["conversations"]
    rows = read_table(out / "conversations" / "test").to_pylist()
    titles = {row["id"]: row["title"] for row in read_table(out / "documents" / "test").to_pylist()}
    rules = Counter(row["rule"] for row in rows)
    assert set(rules) == {"operation_purpose", "parameter_meaning"}
    for row in rows:
        question, answer = (message["content"] for message in row["messages"])
        service, operation = titles[row["document_id"]].rsplit(": ", 1)
        assert service in question
        assert operation in question
        assert settings["min_answer_chars"] <= len(answer) <= settings["max_answer_chars"]
        assert "\n" not in answer
        assert "<p>" not in answer


def test_the_simulated_crowd_prefers_right_answers(ingested: tuple[Path, Report]) -> None:
    out, _ = ingested
    table = read_table(out / "rated_responses" / "train")
    assert table.num_rows == 5 * PARAMS["ingest"]["ratings"]["num_prompts"]["train"]
    assert set(table["rater"].to_pylist()) == {"simulated crowd (synthetic)"}
    rewards: dict[str, list[float]] = {}
    better = Counter[str]()
    right = 0.0
    for row in table.select(["candidate", "votes"]).to_pylist():
        reward = float(REWARDS[row["votes"]].mean())
        rewards.setdefault(row["candidate"], []).append(reward)
        if row["candidate"] == "right":
            right = reward
        else:
            better[row["candidate"]] += right > reward
    mean = {kind: np.mean(found) for kind, found in rewards.items()}
    assert mean["right"] > mean["cut_off"] > max(mean["vague"], mean["other_operation"])
    assert max(mean["unsafe"], mean["leaked_credential"]) < mean["cut_off"]
    # Preferences are noisy, as people's are, but they are preferences.
    assert 0.8 < better["cut_off"] / len(rewards["cut_off"]) < 0.99
