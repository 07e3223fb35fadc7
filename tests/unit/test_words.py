"""Words as arrays, against the same definition written for one character after the other."""

from hypothesis import example, given
from hypothesis import strategies as st

from components.words import (
    ALPHABETIC,
    concatenated_gram_hashes,
    gram_begins,
    gram_hashes,
    sequence_hashes,
    split_words,
)
from tests.builders import plain_words

ANY_TEXT = st.text(max_size=60)
TEXT = st.text("ab'’ _1-.\n é\u0301字か๐\x1c", max_size=40) | ANY_TEXT


def pieces(texts: list[str]) -> list[list[str]]:
    words = split_words(texts)
    chars = words.codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    found = [
        chars[start:end]
        for start, end in zip(words.start[:-1].tolist(), words.start[1:].tolist(), strict=True)
    ]
    return [found[first:last] for first, last in zip(words.first, words.first[1:], strict=False)]


@given(st.lists(TEXT, max_size=5))
@example(["don't", "'tis a dogs' life", "a''b", "it'", "'s"])
@example(["", "", "x", ""])
def test_words_are_those_found_one_character_after_the_other(texts: list[str]) -> None:
    assert pieces(texts) == [plain_words(text) for text in texts]


def test_a_script_without_spaces_has_a_word_for_each_letter() -> None:
    assert pieces(["我们 use NumPy。", "ภาษา"]) == [
        ["我", "们", "use", "NumPy", "。"],
        ["ภ", "า", "ษ", "า"],
    ]


def test_a_combining_mark_belongs_to_its_word() -> None:
    assert pieces(["cafe\u0301 हिन्दी"]) == [["cafe\u0301", "हिन्दी"]]


@given(st.lists(st.text("ab ", max_size=30), min_size=1, max_size=4), st.integers(1, 4))
def test_grams_have_equal_hashes_exactly_if_their_words_are_equal(texts: list[str], n: int) -> None:
    words = split_words(texts)
    spoken = [word for text in texts for word in plain_words(text)]
    begin = gram_begins(words, n)
    grams = [tuple(spoken[start : start + n]) for start in begin.tolist()]
    hashes = gram_hashes(sequence_hashes(words.hashes), begin, n).tolist()
    assert len(set(zip(grams, hashes, strict=True))) == len(set(grams)) == len(set(hashes))


@given(st.text("ab ", max_size=40), st.integers(1, 4))
def test_concatenated_grams_forget_where_words_end(text: str, n: int) -> None:
    words = split_words([text])
    spoken = plain_words(text)
    begin = gram_begins(words, n)
    grams = ["".join(spoken[start : start + n]) for start in begin.tolist()]
    hashes = concatenated_gram_hashes(words, begin, n).tolist()
    assert len(set(zip(grams, hashes, strict=True))) == len(set(grams)) == len(set(hashes))


@given(st.lists(TEXT, max_size=5), st.integers(1, 5))
def test_no_gram_reaches_into_the_next_text(texts: list[str], n: int) -> None:
    begin = gram_begins(split_words(texts), n)
    assert len(begin) == sum(max(0, len(plain_words(text)) - n + 1) for text in texts)


def test_flags_tell_which_words_have_a_letter() -> None:
    words = split_words(["7 a1 -- é ½"])
    assert words.any_flag(ALPHABETIC).tolist() == [False, True, False, False, True, False]
