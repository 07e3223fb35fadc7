"""Near-duplicate search against datasketch, rensa and datatrove: the same documents, one core each.

python -m benchmarks.dedup --documents artifacts/clean/documents/train

Three tables. Signatures alone: from the same 64-bit shingle hashes to 112 hashes a document.
Signatures from text: shingling included, each as its users write it. The whole: from documents to
the ones that stay. Ours runs the stage (reads and writes Parquet, verifies every candidate pair);
datasketch indexes and queries every document and joins what the index returns above its own
estimate; datatrove runs its four steps (writes and sorts signature files, does not verify).
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rensa
import xxhash
from datasketch import MinHash, MinHashLSH
from datatrove.data import Document
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.logging import logger
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.clean_rules import WORD, RegexWords
from components.contract import StageIO
from components.dedup.fingerprints import batches
from components.dedup.minhash import permutations, signatures
from components.dedup.params import DedupParams, MinHashParams
from components.dedup.shingles import Shingles, join, shingle
from components.dedup.stage import run
from components.metrics import QuietSink
from components.schemas import CONVERSATIONS, DOCUMENTS, RATED_RESPONSES, SPLITS, content_id
from components.shards import iter_batches, write_shards

BANDS, ROWS, NGRAM, MIN_JACCARD = 14, 8, 5, 0.8
NUM_HASHES = BANDS * ROWS
MINHASH = MinHashParams(
    ngram_words=NGRAM, bands=BANDS, rows=ROWS, min_jaccard=MIN_JACCARD, max_neighbours=32
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=Path, default=Path("artifacts/clean/documents/train"))
    parser.add_argument("--num-documents", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3, help="of each, in turn")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["TQDM_DISABLE"] = "1"  # datatrove's bars
    logger.remove()

    rows = (
        text.as_py()
        for batch in iter_batches(arguments.documents, ["text"])
        for text in batch.column("text")
    )
    texts = list(islice(rows, arguments.num_documents))
    num_bytes = sum(len(text.encode()) for text in texts)
    print(
        f"{len(texts):,} documents, {num_bytes / 1e6:.1f} MB; {BANDS} x {ROWS}, word {NGRAM}-grams;"
    )
    print(f"CPU seconds of one core, median of {arguments.repeats} runs in turn")

    parts = [shingle(batch, NGRAM) for batch in batches(texts)]
    shingled = join(parts)
    sets = [
        shingled.values[start:end]
        for start, end in zip(shingled.first[:-1], shingled.first[1:], strict=True)
    ]
    compare(
        "signatures from shingle hashes",
        num_bytes,
        arguments.repeats,
        {
            "ours": lambda: our_signatures(parts),
            "datasketch": lambda: [sketch_of_hashes(values) for values in sets],
        },
    )
    compare(
        "signatures from text",
        num_bytes,
        arguments.repeats,
        {
            "ours": lambda: our_signatures([shingle(batch, NGRAM) for batch in batches(texts)]),
            "datasketch": lambda: datasketch_signatures(texts),
            "rensa": lambda: rensa.RMinHash.from_token_sets(
                [text_shingles(text) for text in texts], num_perm=NUM_HASHES, seed=1
            ),
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_corpus(corpus, texts)
        removed = compare(
            "whole dedup",
            num_bytes,
            arguments.repeats,
            {
                "ours": lambda: our_dedup(corpus),
                "datasketch": lambda: datasketch_dedup(texts),
                "datatrove": lambda: datatrove_dedup(texts),
            },
        )
    print("removed: " + ", ".join(f"{name} {number:,}" for name, number in removed.items()))


def compare(
    title: str, num_bytes: int, repeats: int, contenders: dict[str, Callable[[], Any]]
) -> dict[str, Any]:
    """Run all in turn, print a table, return each one's last result."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, work in contenders.items():
            began_s = time.process_time()
            results[name] = work()
            seconds[name].append(time.process_time() - began_s)
    ours_s = statistics.median(seconds["ours"])
    print(f"\n{title:32s} {'MB/s/core':>10s} {'spread':>7s} {'ours is':>9s}")
    for name, values in seconds.items():
        median_s = statistics.median(values)
        spread = (max(values) - min(values)) / median_s
        ratio = "" if name == "ours" else f"{median_s / ours_s:8.1f}x"
        print(f"{name:32s} {num_bytes / 1e6 / median_s:10.2f} {spread:7.0%} {ratio:>9s}")
    return results


def our_signatures(parts: Sequence[Shingles]) -> list[Any]:
    hashes = permutations(NUM_HASHES, 1)
    return [signatures(part, *hashes) for part in parts]


def low_bits(value: int) -> int:
    return value & 0xFFFFFFFF


def sketch_of_hashes(values: Any) -> MinHash:
    sketch = MinHash(NUM_HASHES, hashfunc=low_bits)
    sketch.update_batch(values.tolist())
    return sketch


def text_shingles(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    return [" ".join(words[start : start + NGRAM]) for start in range(max(1, len(words) - 4))]


def datasketch_signatures(texts: Sequence[str]) -> list[MinHash]:
    encoded = ([gram.encode() for gram in set(text_shingles(text))] for text in texts)
    return list(MinHash.generator(encoded, num_perm=NUM_HASHES))


def datasketch_dedup(texts: Sequence[str]) -> int:
    """Documents that go: all but one of each component of pairs above the threshold."""
    sketches = datasketch_signatures(texts)
    index = MinHashLSH(num_perm=NUM_HASHES, params=(BANDS, ROWS))
    pairs: list[tuple[int, int]] = []
    for name, sketch in enumerate(sketches):
        pairs += [
            (name, other)
            for other in index.query(sketch)
            if sketch.jaccard(sketches[other]) >= MIN_JACCARD
        ]
        index.insert(name, sketch)
    edges = np.array(pairs).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (len(texts), len(texts)))
    return len(texts) - int(connected_components(graph, directed=False)[0])


def datatrove_dedup(texts: Sequence[str]) -> int:
    """Documents that go."""
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)

    def documents() -> Iterator[Document]:
        return (Document(text=text, id=str(name)) for name, text in enumerate(texts))

    with tempfile.TemporaryDirectory() as folder:
        sigs, buckets, removed = (str(Path(folder) / name) for name in ("s", "b", "r"))
        step = MinhashDedupSignature(sigs, config, language=RegexWords())
        # Its default hash hands text to xxhash, which takes only bytes since version 4.
        step._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
        step.run(documents(), 0, 1)
        for bucket in range(BANDS):
            MinhashDedupBuckets(sigs, buckets, config=config).run(None, bucket, BANDS)
        MinhashDedupCluster(buckets, removed, config=config).run(None, 0, 1)
        stays = sum(1 for _ in MinhashDedupFilter(removed).run(documents(), 0, 1))
    return len(texts) - stays


def write_corpus(folder: Path, texts: Sequence[str]) -> None:
    """The texts as the stage finds them; it gets no conversations and no ratings."""
    columns = [[content_id(text, str(row)) for row, text in enumerate(texts)], list(texts)]
    table = pa.table(columns + [[""] * len(texts)] * 4, schema=DOCUMENTS)
    for split in SPLITS:
        rows = table if split == "train" else table.slice(0, 0)
        write_shards(folder / "documents" / split, [rows], DOCUMENTS, 4096)
        write_shards(folder / "conversations" / split, [], CONVERSATIONS, 1)
        write_shards(folder / "rated_responses" / split, [], RATED_RESPONSES, 1)


def our_dedup(corpus: Path) -> int:
    """Documents that go."""
    params = DedupParams(
        minhash=MINHASH, paragraphs=None, decontamination=None, rows_per_shard=4096
    )
    with tempfile.TemporaryDirectory() as name:
        folders = {part: Path(name) / part for part in ("out", "work", "reports", "cache")}
        for folder in folders.values():
            folder.mkdir()
        io = StageIO(inputs={"clean": corpus}, seed=1, num_workers=1, **folders)
        report = run(params, io, QuietSink())
    return int(report["num_documents"] - report["num_kept"])


if __name__ == "__main__":
    main()
