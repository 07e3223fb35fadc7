"""Documents are encoded a row group at a time, in their order."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from components.schemas import DOCUMENTS
from components.shards import write_shards
from components.tokenize.encode import encode_tables
from components.tokens import END_OF_TEXT_ID, START_OF_TEXT_ID
from tests.builders import documents_table

FIRST_ID = 10
NUMBERS = {str(number): FIRST_ID + number for number in range(2500)}


def test_a_piece_of_work_is_a_row_group_and_order_and_ids_do_not_depend_on_workers(
    tmp_path: Path,
) -> None:
    tokenizer = Tokenizer(WordLevel(NUMBERS, unk_token="0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    train = documents_table([f"{number} 0" for number in range(2500)])
    write_shards(tmp_path / "train", [train], DOCUMENTS, rows_per_shard=1500)
    write_shards(tmp_path / "valid", [documents_table([])], DOCUMENTS, rows_per_shard=1500)
    write_shards(tmp_path / "test", [documents_table(["7"])], DOCUMENTS, rows_per_shard=1500)
    tables = [tmp_path / name for name in ("train", "valid", "test")]
    for num_workers in (1, 2):
        parts = list(encode_tables(tables, tmp_path / "tokenizer.json", num_workers))
        assert [(table.name, len(part.ids)) for table, part in parts] == [
            ("train", 1024),
            ("train", 476),
            ("train", 1000),
            ("test", 1),
        ]
        assert [name for _, part in parts[:3] for name in part.ids] == train["id"].to_pylist()
        tokens = [token for _, part in parts[:3] for token in part.tokens.tolist()]
        assert tokens == [
            token
            for number in range(2500)
            for token in (START_OF_TEXT_ID, FIRST_ID + number, FIRST_ID, END_OF_TEXT_ID)
        ]
