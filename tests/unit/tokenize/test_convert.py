"""The fast tokenizer is the SentencePiece model, id for id."""

import random

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from components.errors import DataError
from components.tokenize.agreement import HOSTILE_TEXTS, check_agreement
from components.tokenize.convert import fast_tokenizer
from components.tokenize.params import NUM_FIXED_PIECES
from components.tokenize.train import MAX_LINE_CHARS, lines_of, train_sentencepiece
from components.tokens import SPECIAL_TOKENS

SENTENCE = (
    "the operation returns a list of buckets aaa --- === erere sights mama ror 2023 10.0.0.1 "
    "résumé naïve Übergröße , . ; : ( ) [ ] { } <|im_end|>"
)
WORDS = SENTENCE.split()
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"))
PARTS = st.one_of(
    ANY_TEXT,
    st.text("aber ms\n\0", max_size=9),
    st.text("-=. ", max_size=12),
    st.sampled_from([*WORDS, *SPECIAL_TOKENS, "<0x0A>", "\r\n", "  "]),
)
MIXED_TEXT = st.lists(PARTS, max_size=8).map("".join)


@pytest.fixture(scope="module")
def model() -> bytes:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(200)]
    return train_sentencepiece(texts, vocab_size=420, coverage=0.9999)


@pytest.fixture(scope="module")
def original(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def fast(model: bytes) -> Tokenizer:
    tokenizer = fast_tokenizer(model)
    tokenizer.encode_special_tokens = True
    return tokenizer


@settings(max_examples=150, deadline=None)
@given(text=MIXED_TEXT)
def test_both_give_the_same_ids_and_the_text_comes_back(
    original: sentencepiece.SentencePieceProcessor, fast: Tokenizer, text: str
) -> None:
    ids = fast.encode(text, add_special_tokens=False).ids
    assert ids == original.encode(text)
    assert fast.decode(ids, skip_special_tokens=False) == text
    assert not set(ids) & set(range(len(SPECIAL_TOKENS)))


def test_bytes_that_are_no_character_decode_to_replacement_signs(fast: Tokenizer) -> None:
    first_byte = len(SPECIAL_TOKENS)
    assert fast.decode([first_byte + 0xE9, first_byte + 0xBE], skip_special_tokens=False) == "��"


def test_the_vocabulary_begins_with_the_special_tokens_and_the_bytes(
    original: sentencepiece.SentencePieceProcessor,
) -> None:
    pieces = [original.id_to_piece(index) for index in range(NUM_FIXED_PIECES)]
    assert pieces == [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    assert original.get_piece_size() == 420


def test_yis_choices_hold(original: sentencepiece.SentencePieceProcessor) -> None:
    pieces = original.encode("2023", out_type=str)
    assert pieces == ["2", "0", "2", "3"]
    assert original.encode("龍", out_type=str) == ["<0xE9>", "<0xBE>", "<0x8D>"]
    assert original.decode(original.encode("a  b，")) == "a  b，"
    assert not original.encode("the", out_type=str)[0].startswith("▁")


def test_the_sign_for_a_space_reads_as_a_space(fast: Tokenizer) -> None:
    ids = fast.encode("a▁b", add_special_tokens=False).ids
    assert fast.decode(ids, skip_special_tokens=False) == "a b"


def test_markers_are_special_only_where_the_tokenizer_is_told_to_read_them(model: bytes) -> None:
    reads_markers = fast_tokenizer(model)
    assert reads_markers.encode("<|im_end|>", add_special_tokens=False).ids == [7]
    reads_markers.encode_special_tokens = True
    assert 7 not in reads_markers.encode("<|im_end|>", add_special_tokens=False).ids


def test_the_check_of_every_run_finds_a_wrong_conversion(model: bytes, fast: Tokenizer) -> None:
    assert check_agreement(model, fast_tokenizer(model), ["a list of buckets"]) == 1 + len(
        HOSTILE_TEXTS
    )
    other = train_sentencepiece(["other words of another kind"] * 50, vocab_size=300, coverage=1.0)
    with pytest.raises(RuntimeError, match="differs from SentencePiece"):
        check_agreement(model, fast_tokenizer(other), ["a list of buckets"])


def test_training_twice_gives_the_same_bytes(model: bytes) -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(200)]
    assert train_sentencepiece(texts, vocab_size=420, coverage=0.9999) == model


def test_too_little_text_is_said_so() -> None:
    with pytest.raises(DataError, match="no vocabulary of 5000 pieces"):
        train_sentencepiece(["a b c"], vocab_size=5000, coverage=1.0)


def test_lines_are_cut_rather_than_lost() -> None:
    text = "x" * (2 * MAX_LINE_CHARS + 5) + "\n\n \ny\0z"
    assert [len(line) for line in lines_of([text])] == [MAX_LINE_CHARS, MAX_LINE_CHARS, 5, 1, 1]
