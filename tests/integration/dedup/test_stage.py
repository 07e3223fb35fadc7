"""The dedup stage as a whole."""

import json
import random
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.contract import Report
from components.dedup.params import DedupParams
from components.dedup.stage import run
from components.errors import DataError
from components.gates.check import check_contract
from components.metrics import QuietSink
from components.schemas import SPLITS, content_id
from components.shards import read_table
from tests.builders import conversation, documentation, stage_io, write_corpus

SECTION = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text("utf-8"))["dedup"]
CONTRACT = Path("components/dedup/contract.yaml")


def dedup(folder: Path, source: Path, num_workers: int = 1, **changes: object) -> Report:
    params = DedupParams.model_validate_json(json.dumps(SECTION | changes))
    return run(params, stage_io(folder, {"clean": source}, num_workers), QuietSink())


def prose(seed: int, num_words: int = 120) -> str:
    """Text of which no two share five words in a row."""
    generator = random.Random(seed)
    return " ".join(
        "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(num_words)
    )


def changed(text: str, *positions: int) -> str:
    words = text.split()
    for position in positions:
        words[position] = "changed"
    return " ".join(words)


def response(
    document_id: str, prompt: str, text: str, candidate: str = "other"
) -> dict[str, object]:
    return {
        "id": content_id(document_id, prompt, text), "prompt_id": content_id(document_id, prompt),
        "document_id": document_id, "prompt": prompt, "response": text, "candidate": candidate,
        "prior": [1.0, 0, 0, 0, 0, 0], "votes": [0], "rater": "test", "synthetic": True,
    }  # fmt: skip


def rejected(folder: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in read_table(folder / "out" / "rejected").to_pylist()}


def kept(folder: Path, split: str) -> list[str]:
    texts: list[str] = read_table(folder / "out" / "documents" / split)["text"].to_pylist()
    return texts


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_of_copies_the_held_out_one_stays_then_the_smallest_id(tmp_path: Path) -> None:
    once, twice, thrice = prose(1), prose(2), prose(3)
    ids = write_corpus(
        tmp_path / "clean",
        {
            "train": [once, twice, twice, thrice, prose(4)],
            "valid": [thrice, prose(5)],
            "test": [thrice, once],
        },
    )
    report = dedup(tmp_path / "run", tmp_path / "clean")
    gone = rejected(tmp_path / "run")
    test, valid, train = ids["test"], ids["valid"], ids["train"]
    assert {name: row["matched_id"] for name, row in gone.items()} == {
        valid[0]: test[0],
        train[3]: test[0],
        train[0]: test[1],
        max(train[1:3]): min(train[1:3]),
    }
    assert {row["reason"] for row in gone.values()} == {"exact"}
    assert kept(tmp_path / "run", "test") == [thrice, once]
    assert kept(tmp_path / "run", "valid") == [prose(5)]
    assert kept(tmp_path / "run", "train") == [twice, prose(4)]
    assert report["num_clusters"] == 3
    assert report["num_training_copies_of_held_out"] == 2
    assert report["duplicate_fraction"] == pytest.approx(4 / 9, abs=1e-6)


def test_near_duplicates_go_by_true_similarity_and_chains_hold_together(tmp_path: Path) -> None:
    text = prose(1)
    near = changed(text, 60)  # 111 of 121 five-grams are shared
    nearer_to_near = changed(near, 10)  # of the first only 106 of 126
    far = changed(text, *range(0, 120, 12))
    write_corpus(tmp_path / "clean", {"train": [text, near, nearer_to_near, far, "7 - 9", "..."]})
    report = dedup(tmp_path / "run", tmp_path / "clean")
    assert report["removed"]["near"] == 2
    assert len(kept(tmp_path / "run", "train")) == 4
    for row in rejected(tmp_path / "run").values():
        assert row["similarity"] in (
            pytest.approx(111 / 121),
            pytest.approx(106 / 126),
        )
    clusters = read_table(tmp_path / "run" / "out" / "clusters").to_pylist()
    assert [row["reason"] for row in clusters] == ["", "near", "near"]
    assert {row["cluster_id"] for row in clusters} == {clusters[0]["id"]}


def test_a_training_document_that_contains_a_held_out_one_goes(tmp_path: Path) -> None:
    secret = prose(1, 60)
    leaking = f"{prose(2)} {secret} {prose(3)}"
    touching = f"{prose(4)} {' '.join(secret.split()[:30])}"
    ids = write_corpus(
        tmp_path / "clean", {"train": [leaking, touching, prose(5)], "test": [secret]}
    )
    dedup(tmp_path / "run", tmp_path / "clean")
    gone = rejected(tmp_path / "run")
    assert list(gone) == [ids["train"][0]]
    assert gone[ids["train"][0]] == {
        "id": ids["train"][0],
        "split": "train",
        "reason": "contaminated",
        "matched_id": ids["test"][0],
        "similarity": 1.0,
    }
    assert kept(tmp_path / "run", "test") == [secret]  # the held-out side is left as it is


def test_repeated_lines_go_after_the_first_and_empty_documents_with_them(tmp_path: Path) -> None:
    line = "This documentation is preliminary and may change at any time without notice."
    texts = [f"{prose(seed)}\n\n{line}\n\n{prose(seed + 100, 5)}" for seed in range(5)]
    ids = write_corpus(tmp_path / "clean", {"train": texts, "test": [f"{line}\n{line.upper()}"]})
    report = dedup(
        tmp_path / "run",
        tmp_path / "clean",
        paragraphs={"min_occurrences": 4, "min_chars": 50},
        decontamination=None,
    )
    assert kept(tmp_path / "run", "train") == [text.replace(f"{line}\n\n", "") for text in texts]
    assert kept(tmp_path / "run", "test") == [line]
    assert report["num_lines_removed"] == 6
    write_corpus(tmp_path / "other", {"train": [*texts, f"{line}!\n{line}?"]})
    report = dedup(
        tmp_path / "again",
        tmp_path / "other",
        paragraphs={"min_occurrences": 4, "min_chars": 50},
        decontamination=None,
    )
    assert report["removed"]["emptied"] == 1
    assert ids["train"][0] not in rejected(tmp_path / "again")


def test_what_is_one_text_once_its_repeated_lines_are_gone_stays_once_held_out_first(
    tmp_path: Path,
) -> None:
    notices = [prose(seed, 40) for seed in (100, 101)]
    body, twin = prose(1, 30), prose(2, 30)
    train = [f"{prose(seed, 60)}\n\n{notices[seed % 2]}" for seed in range(1000, 1120)]
    train += [f"{body}\n\n{notices[1]}", f"{twin}\n\n{notices[0]}", f"{twin}\n\n{notices[1]}"]
    test = [f"{prose(8, 60)}\n\n{notice}" for notice in notices] + [f"{body}\n\n{notices[0]}"]
    ids = write_corpus(tmp_path / "clean", {"train": train, "test": test})
    report = dedup(tmp_path / "run", tmp_path / "clean", decontamination=None)
    assert kept(tmp_path / "run", "test")[2] == body
    assert body not in kept(tmp_path / "run", "train")
    assert kept(tmp_path / "run", "train").count(twin) == 1
    twins = sorted(ids["train"][-2:])
    assert rejected(tmp_path / "run") == {
        gone: {
            "id": gone,
            "split": "train",
            "reason": "same_rest",
            "matched_id": stays,
            "similarity": 1.0,
        }
        for gone, stays in ((ids["train"][-3], ids["test"][2]), (twins[1], twins[0]))
    }
    assert report["removed"]["same_rest"] == 2
    out = tmp_path / "run" / "out"
    assert check_contract(CONTRACT, out, report, tmp_path / "page.html")["num_failed"] == 0


def test_conversations_and_ratings_follow_their_documents(tmp_path: Path) -> None:
    text = prose(1)
    ids = write_corpus(tmp_path / "ids", {"train": [text, text, prose(2)]})["train"]
    write_corpus(
        tmp_path / "clean",
        {"train": [text, text, prose(2)]},
        {"train": [conversation(name, f"Why {name}?", "So.") for name in (*ids, "")]},
        {"train": [response(name, f"Why {name}?", "So.") for name in (*ids, "")]},
    )
    report = dedup(tmp_path / "run", tmp_path / "clean")
    stays = {min(ids[:2]), ids[2], ""}
    for table in ("conversations", "rated_responses"):
        rows = read_table(tmp_path / "run" / "out" / table / "train")
        assert set(rows["document_id"].to_pylist()) == stays
        assert report[f"num_{table}"] == {"train": 3, "valid": 0, "test": 0}
        assert report[f"removed_{table}"]["train"] == {
            "document": 1,
            "held_out_answer": 0,
            "exact": 0,
        }


def test_no_answer_of_a_held_out_split_is_trained_on(tmp_path: Path) -> None:
    asked, rated = "The name of the bucket in use.", "How many days an object is kept."
    texts = {"train": [prose(1)], "valid": [prose(2)], "test": [prose(3)]}
    clean = tmp_path / "clean"
    write_corpus(
        clean,
        texts,
        {
            "train": [
                conversation("", "What is Bucket?", f" {asked.upper()}"),
                conversation("", "What is Days?", f"{rated}"),
                conversation("", "Is it so?", "Yes."),
                conversation("", "Is it not?", "Yes."),
                conversation("", "What is Key?", "The key that the object is stored by."),
            ],
            "valid": [conversation("", "What is a bucket?", f"{asked} It is unique.")],
            "test": [
                conversation("", "What is BucketName?", asked),
                conversation("", "Is it so?", "Yes."),
            ],
        },
        {
            "train": [
                response("", "What is Bucket?", asked, "right"),
                response("", "What is Bucket?", "It is a parameter of this operation."),
                response("", "What is Key?", "The key that the object is stored by."),
                response("", "What is Key?", "It says nothing at all to anybody.", "vague"),
            ],
            "valid": [response("", "What is LifeDays?", rated)],
            "test": [response("", "What?", "It says nothing at all to anybody.", "vague")],
        },
    )
    report = dedup(tmp_path / "run", clean)
    out = tmp_path / "run" / "out"
    questions = {
        split: [row["messages"][0]["content"] for row in rows]
        for split in SPLITS
        for rows in [read_table(out / "conversations" / split).to_pylist()]
    }
    assert questions == {
        "train": ["Is it not?", "What is Key?"],
        "valid": [],
        "test": ["What is BucketName?", "Is it so?"],
    }
    prompts = {
        split: read_table(out / "rated_responses" / split)["prompt"].to_pylist() for split in SPLITS
    }
    assert prompts == {
        "train": ["What is Key?", "What is Key?"],
        "valid": ["What is LifeDays?"],
        "test": ["What?"],
    }
    removed = report["removed_conversations"]
    assert [removed[split]["held_out_answer"] for split in SPLITS] == [3, 1, 0]
    assert report["removed_rated_responses"]["train"]["held_out_answer"] == 2
    report = dedup(tmp_path / "all", clean, decontamination=None)
    assert report["num_conversations"] == {"train": 4, "valid": 1, "test": 2}  # one is exact


def test_of_equal_conversations_of_a_user_one_stays(tmp_path: Path) -> None:
    own = [conversation("", question, "So it is, and has been.") for question in "aabac"]
    write_corpus(tmp_path / "clean", {"train": [prose(1)]}, {"train": own})
    report = dedup(tmp_path / "run", tmp_path / "clean")
    rows = read_table(tmp_path / "run" / "out" / "conversations" / "train").to_pylist()
    assert [row["messages"][0]["content"] for row in rows] == ["a", "b", "c"]
    assert report["removed_conversations"]["train"]["exact"] == 2


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three services, one of them in twelve versions: real near duplicates."""
    folder = tmp_path_factory.mktemp("clean")
    texts = documentation(["cloudfront", "sqs", "rds"])
    assert len(texts) > 700
    train, valid, test = texts[: len(texts) - 60], texts[-60:-40], texts[-40:]
    write_corpus(folder, {"train": train, "valid": valid, "test": test}, rows_per_shard=200)
    return folder


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, real: Path) -> None:
    report = dedup(tmp_path / "one", real, num_workers=1)
    dedup(tmp_path / "three", real, num_workers=3)
    assert files(tmp_path / "one" / "out") == files(tmp_path / "three" / "out")
    assert min(report["removed"][reason] for reason in ("near", "exact", "contaminated")) >= 10
    contract = check_contract(CONTRACT, tmp_path / "one" / "out", report, tmp_path / "page.html")
    assert contract["num_failed"] == 0
    assert (tmp_path / "one" / "reports" / "cluster_sizes.png").stat().st_size > 5000
    assert list((tmp_path / "one" / "work").iterdir()) == []


def test_nothing_is_lost_on_the_way(tmp_path: Path, real: Path) -> None:
    report = dedup(tmp_path, real)
    names = set(rejected(tmp_path))
    for split in SPLITS:
        out = read_table(tmp_path / "out" / "documents" / split)
        names |= set(out["id"].to_pylist())
        assert out.num_rows == report["num_kept_by_split"][split]
    before = [read_table(real / "documents" / split)["id"] for split in SPLITS]
    assert names == {name for ids in before for name in ids.to_pylist()}


def test_twenty_thousand_copies_and_twenty_thousand_near_copies_cost_few_comparisons(
    tmp_path: Path,
) -> None:
    boilerplate = prose(1, 200)
    copies = [boilerplate] * 20_000
    near = [f"{boilerplate} {prose(seed, 2)}" for seed in range(2, 20_002)]
    write_corpus(tmp_path / "clean", {"train": [*copies, *near, prose(0)]}, rows_per_shard=50_000)
    report = dedup(tmp_path / "run", tmp_path / "clean", num_workers=2)
    assert report["num_kept"] == 2
    assert report["largest_cluster_documents"] == 40_000
    # 20,001 distinct texts make 200 million pairs.
    assert report["num_comparisons"] < 3 * 20_001


def test_every_part_but_exact_duplicates_can_be_left_out(tmp_path: Path, real: Path) -> None:
    report = dedup(tmp_path, real, minhash=None, paragraphs=None, decontamination=None)
    assert report["removed"] == {
        "exact": report["num_documents"] - report["num_kept"],
        "near": 0,
        "contaminated": 0,
        "emptied": 0,
        "same_rest": 0,
    }
    texts = [text for split in SPLITS for text in kept(tmp_path, split)]
    assert len(texts) == len(set(texts))


def test_a_corpus_of_which_nothing_stays_is_an_error_of_one_line(tmp_path: Path) -> None:
    write_corpus(tmp_path / "clean", {"train": [prose(1)], "test": [prose(1)]})
    with pytest.raises(DataError) as caught:
        dedup(tmp_path / "run", tmp_path / "clean")
    assert caught.value.message == "none of 1 training documents is left: 1 exact"


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path / "clean", {"train": [prose(1)]})
    shard = tmp_path / "clean" / "documents" / "train" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"part-00000\.parquet: not a whole Parquet file"):
        dedup(tmp_path / "run", tmp_path / "clean")


def test_a_failed_attempt_leaves_nothing_that_confuses_the_next(tmp_path: Path) -> None:
    write_corpus(tmp_path / "clean", {"train": [prose(1), prose(2)]})
    io = stage_io(tmp_path / "run", {"clean": tmp_path / "clean"})
    (io.work / "spill").mkdir()
    (io.work / "spill" / "shingles.u64").write_bytes(b"half of something")
    params = DedupParams.model_validate_json(json.dumps(SECTION))
    assert run(params, io, QuietSink())["num_kept"] == 2
