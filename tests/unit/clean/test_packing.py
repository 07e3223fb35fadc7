"""What goes to another machine and back is what it was."""

import json
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from components.clean.cleaning import Cleaned, Counts, Piece, clean_piece
from components.clean.packing import pack, rules_from_json, rules_to_json, unpack
from components.clean.params import CleanParams
from components.piece_files import read_packed, write_packed
from components.section import read_yaml
from components.shards import row_groups
from tests.builders import conversation, write_corpus

PARAMS = CleanParams.model_validate_json(json.dumps(read_yaml(Path("params.yaml"))["clean"]))


def cleaned(folder: Path, table: str) -> Cleaned:
    texts = ["", "Too short.", f"Ask jane@corp.example.net about {'the queue of messages ' * 8}"]
    talk = conversation("", "Whom to ask?", "Ask jane@corp.example.net, it is hers.")
    write_corpus(folder, {"train": texts}, {"train": [talk]})
    (group,) = row_groups(folder / table / "train")
    return clean_piece(Piece(table, "train", group), PARAMS, {"": PARAMS.rules})


@pytest.mark.parametrize(("table", "rejects"), [("documents", True), ("conversations", False)])
def test_a_cleaned_piece(tmp_path: Path, table: str, rejects: bool) -> None:
    before = cleaned(tmp_path, table)
    write_packed(tmp_path / "piece", pack(before))
    after = unpack(read_packed(tmp_path / "piece"))
    assert after.kept.equals(before.kept)
    assert after.kept.schema == before.kept.schema
    assert (before.rejected is not None) == rejects
    if before.rejected is not None and after.rejected is not None:
        assert before.rejected.num_rows > 0
        assert after.rejected.equals(before.rejected)
    assert (after.rejected is None) == (before.rejected is None)
    for each in fields(Counts):
        one, other = getattr(before.counts, each.name), getattr(after.counts, each.name)
        assert type(one) is type(other), each.name
        if isinstance(one, Counter):
            assert list(one.items()) == list(other.items())  # pictures break ties by order
        else:
            assert np.array_equal(one, other), each.name


def test_rules_keep_their_order_and_open_sides() -> None:
    rules = {"": PARAMS.rules, "en": {"num_words": (0.1 + 0.2, None), "language_score": (None, 1)}}
    found = rules_from_json(rules_to_json(rules))
    assert found == rules
    assert [list(own) for own in found.values()] == [list(own) for own in rules.values()]
    assert isinstance(found["en"]["num_words"], tuple)
