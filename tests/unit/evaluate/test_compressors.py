import lzma
import random

import zstandard

from components.evaluate.compressors import (
    primed_zstd_bits,
    training_text,
    xz_bits,
    zstd_bits,
)

WORDS = [f"word{i}" for i in range(500)]
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=300)).encode() for i in range(8)]


def test_the_streams_hold_the_texts() -> None:
    joined = b"\0".join(TEXTS)
    assert xz_bits(TEXTS, 6) < 8 * len(joined) / 2
    assert zstd_bits(TEXTS, 19) < 8 * len(joined) / 2
    # xz's own container adds its headers, its index and a checksum: below a hundred bytes.
    whole = 8 * len(lzma.compress(joined, preset=6 | lzma.PRESET_EXTREME))
    assert 0 < whole - xz_bits(TEXTS, 6) < 800


def test_a_text_that_is_in_the_dictionary_costs_almost_nothing() -> None:
    dictionary = training_text([text.decode() for text in TEXTS[:4]], 1 << 20)
    bits = primed_zstd_bits(TEXTS, dictionary, 19)
    assert all(cost < 300 for cost in bits[:4])
    assert all(cost > 3000 for cost in bits[4:])


def test_a_primed_frame_can_be_read_back() -> None:
    dictionary = training_text([text.decode() for text in TEXTS[:4]], 1 << 20)
    content = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    whole = zstandard.ZstdCompressor(level=19, dict_data=content).compress(TEXTS[5])
    assert zstandard.ZstdDecompressor(dict_data=content).decompress(whole) == TEXTS[5]
    # Ours leaves out the magic number, the size and the dictionary's id.
    (bits,) = primed_zstd_bits([TEXTS[5]], dictionary, 19)
    assert -64 <= bits - 8 * len(whole) < 0.02 * 8 * len(whole)


def test_training_text_takes_whole_texts_in_order_up_to_the_limit() -> None:
    assert training_text(["one", "two", "three"], 8) == b"one\0two\0"
