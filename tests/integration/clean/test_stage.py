"""The clean stage as a whole, on real and on spoilt tables."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from components.clean.params import METRICS, CleanParams
from components.clean.stage import run
from components.contract import Report
from components.errors import DataError
from components.gates.check import check_contract
from components.metrics import QuietSink
from components.schemas import DOCUMENTS, SPLITS
from components.shards import read_table
from tests.builders import conversation, documentation, stage_io, write_corpus

SECTION = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text("utf-8"))["clean"]
CONTRACT = Path("components/clean/contract.yaml")
PROSE = (
    "The queue holds messages until a consumer has read and deleted them. Each message is "
    "delivered at least once, and to one consumer at a time. A consumer that fails to delete it "
    "in time will see it again, so the work that it does must bear being repeated."
)


def params(**changes: object) -> CleanParams:
    return CleanParams.model_validate_json(json.dumps(SECTION | changes))


def clean(folder: Path, source: Path, num_workers: int = 1, **changes: object) -> Report:
    io = stage_io(folder, {"ingest": source}, num_workers)
    return run(params(**changes), io, QuietSink())


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Operations of a service, and with them what cleaning is for."""
    folder = tmp_path_factory.mktemp("ingest")
    texts = documentation(["sqs", "sns"])
    secret = f"{PROSE} Ask jane@corp.example.net at 8.8.8.8, key AKIAIOSFODNN7EXAMPLE."
    spoilt = [
        "",
        "Too short.",
        "这个操作返回指定资源的所有标签列表，并说明每个参数的含义。" * 9,
        "buy now " * 200,
        f"Configure: {PROSE}" + " {} []" * 60,
        secret,
        f"{PROSE}\nLearn more",
    ]
    ids = write_corpus(
        folder,
        {"train": texts[:-8] + spoilt, "valid": texts[-8:-4], "test": texts[-4:]},
        {"train": [conversation("", "Whom to ask?", "Ask jane@corp.example.net, it is hers.")]},
        rows_per_shard=40,
    )
    assert len(ids["train"]) > 50
    return folder


def test_every_document_is_kept_or_rejected_with_a_reason(tmp_path: Path, real: Path) -> None:
    report = clean(tmp_path, real)
    out = tmp_path / "out"
    kept = {
        row["id"] for split in SPLITS for row in read_table(out / "documents" / split).to_pylist()
    }
    rejected = read_table(out / "rejected").to_pylist()
    before = {
        row["id"]: row
        for split in SPLITS
        for row in read_table(real / "documents" / split).to_pylist()
    }
    assert kept | {row["id"] for row in rejected} == set(before)
    assert len(kept) + len(rejected) == len(before) == report["num_documents"]
    assert all(row["text"] == before[row["id"]]["text"] for row in rejected)
    reasons = {row["text"][:10]: row["reason"] for row in rejected}
    assert reasons[""] == "empty"
    assert reasons["Too short."] == "num_words_low"
    assert reasons["这个操作返回指定资源"] == "language"
    assert reasons["buy now bu"] == "num_stop_words_low"
    assert reasons["Configure:"] == "alphabetic_word_fraction_low"
    assert report["removed"] == dict(Counter(row["reason"] for row in rejected))
    assert set(rejected[0]["scores"]) == set(METRICS)
    assert check_contract(CONTRACT, out, report, tmp_path / "page.html")["num_failed"] == 0
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "languages.png",
        "lengths.png",
        "reasons.png",
    ]


def test_personal_data_is_gone_from_documents_and_conversations(tmp_path: Path, real: Path) -> None:
    report = clean(tmp_path, real)
    texts = read_table(tmp_path / "out" / "documents" / "train")["text"].to_pylist()
    assert f"{PROSE} Ask [EMAIL] at [IP], key [KEY]." in texts
    assert PROSE in texts  # "Learn more" is gone
    assert report["removed_lines"] == {"call_to_action": 1}
    conversations = read_table(tmp_path / "out" / "conversations" / "train").to_pylist()
    assert conversations[0]["messages"][1]["content"] == "Ask [EMAIL], it is hers."
    assert report["replaced_in_conversations_and_ratings"] == {"email": 1}


def test_personal_data_is_gone_from_titles_and_urls(tmp_path: Path) -> None:
    write_corpus(tmp_path / "ingest", {"train": [PROSE]})
    (shard,) = (tmp_path / "ingest" / "documents" / "train").glob("*.parquet")
    (row,) = pq.read_table(shard).to_pylist()
    row |= {
        "title": "Ask jane@corp.example.net",
        "url": "https://example.org/to:jane@corp.example.net?key=AKIAIOSFODNN7EXAMPLE",
    }
    pq.write_table(pa.Table.from_pylist([row], DOCUMENTS), shard)
    report = clean(tmp_path / "run", tmp_path / "ingest")
    (kept,) = read_table(tmp_path / "run" / "out" / "documents" / "train").to_pylist()
    assert kept["title"] == "Ask [EMAIL]"
    assert kept["url"] == "https://example.org/to:[EMAIL]?key=[KEY]"
    assert report["replaced_in_documents"] == {"email": 2, "key": 1}


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, real: Path) -> None:
    clean(tmp_path / "one", real, num_workers=1)
    clean(tmp_path / "three", real, num_workers=3)
    assert files(tmp_path / "one" / "out") == files(tmp_path / "three" / "out")


def test_cleaning_what_is_clean_changes_nothing(tmp_path: Path, real: Path) -> None:
    clean(tmp_path / "once", real)
    report = clean(tmp_path / "twice", tmp_path / "once" / "out")
    assert report["removed"] == {}
    assert report["replaced_in_documents"] == {}
    again = files(tmp_path / "twice" / "out" / "documents")
    assert again == files(tmp_path / "once" / "out" / "documents")
    contract = check_contract(CONTRACT, tmp_path / "twice" / "out", report, None)
    assert contract["num_failed"] == 0  # with nothing rejected, too


def test_fitted_bounds_take_the_tails_of_the_corpus_itself(tmp_path: Path, real: Path) -> None:
    fit = {"num_documents": 10_000, "min_documents": 30, "q_low": 0.05, "q_high": 1.0}
    rules = {"num_words": [20, None]}
    report = clean(tmp_path, real, fit=fit, rules=rules)
    low, high = report["thresholds"]["en"]["num_words"]
    assert low > 20
    assert high is None
    kept = read_table(tmp_path / "out" / "documents" / "train")
    held_out = sum(read_table(real / "documents" / s).num_rows for s in ("valid", "test"))
    num_english = report["languages"]["en"] - held_out
    assert kept.num_rows == pytest.approx(0.95 * num_english, abs=1)
    # A language with few documents keeps the stated bounds.
    assert set(report["thresholds"]) == {"every other", "en"}
    assert report["thresholds"]["every other"] == {"num_words": (20, None)}


def test_a_document_above_the_limit_is_rejected_unread(tmp_path: Path) -> None:
    write_corpus(tmp_path / "ingest", {"train": [PROSE, PROSE + " " + PROSE.lower()]})
    report = clean(tmp_path / "run", tmp_path / "ingest", max_document_chars=len(PROSE))
    assert report["removed"] == {"too_long": 1}


def test_a_corpus_of_which_nothing_stays_is_an_error_that_names_the_rule(tmp_path: Path) -> None:
    write_corpus(tmp_path / "ingest", {"train": ["Short.", "Shorter."]})
    with pytest.raises(DataError) as caught:
        clean(tmp_path / "run", tmp_path / "ingest")
    assert caught.value.message == (
        "every one of 2 training documents was rejected, 2 of them for num_words_low"
    )
    assert caught.value.hint == "loosen clean.rules.num_words"


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    write_corpus(tmp_path / "ingest", {"test": [PROSE]})
    with pytest.raises(DataError, match="no training document"):
        clean(tmp_path / "run", tmp_path / "ingest")


@pytest.mark.parametrize("table", ["documents", "conversations"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_truncated_shard_is_named(tmp_path: Path, table: str, num_workers: int) -> None:
    write_corpus(tmp_path / "ingest", {"train": [PROSE]})
    shard = tmp_path / "ingest" / table / "train" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"part-00000\.parquet: not a whole Parquet file"):
        clean(tmp_path / "run", tmp_path / "ingest", num_workers)


def test_a_shard_whose_pages_are_damaged_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path / "ingest", {"train": [PROSE]})
    shard = tmp_path / "ingest" / "documents" / "train" / "part-00000.parquet"
    content = bytearray(shard.read_bytes())
    start = pq.read_metadata(shard).row_group(0).column(1).data_page_offset
    content[start : start + 40] = bytes(40)
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"part-00000\.parquet: not a whole Parquet file"):
        clean(tmp_path / "run", tmp_path / "ingest")
