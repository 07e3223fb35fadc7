"""Encoding to token shards against the bare tokenizers library, on the same text.

python -m benchmarks.encode --tokenize artifacts/tokenize --documents artifacts/dedup/documents/train
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from components.shards import read_table
from components.tokenize.encode import encode_tables
from components.tokens import write_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenize", type=Path, default=Path("artifacts/tokenize"))
    parser.add_argument("--documents", type=Path, default=Path("artifacts/dedup/documents/train"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    path = arguments.tokenize / "tokenizer" / "tokenizer.json"

    def bare() -> None:
        """Read, encode with the library's own threads, keep nothing."""
        texts = read_table(arguments.documents, ["text"]).column("text").to_pylist()
        Tokenizer.from_file(str(path)).encode_batch_fast(texts, add_special_tokens=False)

    def ours() -> None:
        """Read, encode, write shards and their index."""
        with tempfile.TemporaryDirectory() as folder:
            parts = encode_tables([arguments.documents], path, arguments.workers)
            write_tokens(
                Path(folder) / "tokens",
                (part for _, part in parts),
                vocab_size=1 << 16,
                tokens_per_shard=1 << 25,
            )

    num_bytes = sum(
        len(text.encode())
        for text in read_table(arguments.documents, ["text"]).column("text").to_pylist()
    )
    os.environ["RAYON_NUM_THREADS"] = str(arguments.workers)
    seconds = {fn.__name__: median_s(fn, arguments.repeats) for fn in (bare, ours)}
    for name, value in seconds.items():
        print(f"{name:6s} {value:6.2f} s  {num_bytes / 1e6 / value:6.1f} MB/s")
    print(f"ours / bare: {seconds['ours'] / seconds['bare']:.2f} times the time")


def median_s(fn: Callable[[], None], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began_at = time.perf_counter()
        fn()
        times.append(time.perf_counter() - began_at)
    return statistics.median(times)


if __name__ == "__main__":
    main()
