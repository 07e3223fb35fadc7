"""What goes to another machine and back is what it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.contract import Share
from components.dedup.fingerprints import Fingerprints, Piece, fingerprint
from components.dedup.inspection import Inspection
from components.dedup.minhash import permutations
from components.dedup.packing import FINGERPRINTS, INSPECTIONS
from components.dedup.params import MinHashParams
from components.dedup.passes import pieces_left, pieces_of, tell_left
from components.piece_files import read_packed, write_packed
from components.shards import row_groups
from components.sharing import Form
from tests.builders import write_corpus

MINHASH = MinHashParams(ngram_words=2, bands=3, rows=2, min_jaccard=0.7, max_neighbours=9)


def flat(found: Fingerprints) -> dict[str, np.ndarray]:
    arrays = {"ids": found.ids, "contents": found.contents}
    for name in ("shingles", "held_out"):
        sets = getattr(found, name)
        if sets is not None:
            arrays |= {f"{name} values": sets.values, f"{name} first": sets.first}
    return arrays | ({"keys": found.keys} if found.keys is not None else {})


def there_and_back(folder: Path, form: Form[Any], result: Any) -> Any:
    write_packed(folder / "piece", form.pack(result))
    return form.unpack(read_packed(folder / "piece"))


@pytest.mark.parametrize("minhash", [MINHASH, None])
@pytest.mark.parametrize("ngram_words", [3, 0])
def test_fingerprints(tmp_path: Path, minhash: MinHashParams | None, ngram_words: int) -> None:
    texts = ["one two three four", "", "one two three", "..."]
    write_corpus(tmp_path, {"test": texts})
    (group,) = row_groups(tmp_path / "documents" / "test")
    before = fingerprint(Piece("test", group), minhash, permutations(6, 1), ngram_words)
    after = there_and_back(tmp_path, FINGERPRINTS, before)
    wanted, found = flat(before), flat(after)
    assert len(wanted) == 2 + 3 * (minhash is not None) + 2 * (ngram_words > 0)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert np.array_equal(found[name], array), name
    assert after.num_bytes == before.num_bytes == sum(map(len, texts))


def test_fingerprints_of_no_document(tmp_path: Path) -> None:
    none, no_set = np.zeros(0, "S32"), np.zeros((0, 3), np.uint64)
    before = Fingerprints(none, none, 0, None, no_set, None)
    after = there_and_back(tmp_path, FINGERPRINTS, before)
    assert (after.ids.shape, after.ids.dtype) == ((0,), none.dtype)
    assert after.keys is not None
    assert after.keys.shape == (0, 3)


@pytest.mark.parametrize("num_lines", [[2, 0, 1], []])
def test_inspections(tmp_path: Path, num_lines: list[int]) -> None:
    count = len(num_lines)
    before = Inspection(
        overlap=np.linspace(0, 1 / 3, count),
        held_out=np.arange(count) - 1,
        lines=np.arange(sum(num_lines), dtype=np.uint64) + np.uint64(2**64 - 9),
        num_lines=np.array(num_lines, np.int64),
    )
    after = there_and_back(tmp_path, INSPECTIONS, before)
    for name, array in vars(before).items():
        found = getattr(after, name)
        assert found.dtype == array.dtype, name
        assert np.array_equal(found, array), name


def test_each_piece_gets_its_own_documents_that_are_left(tmp_path: Path) -> None:
    texts = ["a", "b", "c", "d", "e"]
    write_corpus(tmp_path, {"train": texts, "test": ["f"]}, rows_per_shard=2)
    pieces = pieces_of(tmp_path / "documents", ("test", "train"))
    is_left = np.array([True, False, True, True, False, True])
    share = Share(0, 2, tmp_path)
    tell_left(share, is_left)
    (told,) = tmp_path.glob("left.*")
    bits = np.unpackbits(np.frombuffer(told.read_bytes(), np.uint8)).astype(bool)
    for known in (is_left, bits):
        left = [each.is_left.tolist() for each in pieces_left(pieces, known)]
        assert left == [[True], [False, True], [True, False], [True]]
