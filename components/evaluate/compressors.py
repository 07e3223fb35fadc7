"""Bits that general-purpose compressors need for the same documents.

Two protocols. Alone: all documents in one stream, nothing known before; the compressor learns from
each document for the next, which the language models do not. Primed: each document by itself, with
the training text as zstd's dictionary, which is what the language models are given.
"""

import lzma
import math
from collections.abc import Iterable, Sequence

import zstandard

SEPARATOR = b"\0"


def xz_bits(texts: Sequence[bytes], preset: int) -> float:
    """One LZMA2 stream of all texts, at `preset` with its extreme flag, without xz's headers."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset | lzma.PRESET_EXTREME}]
    stream = lzma.compress(SEPARATOR.join(texts), format=lzma.FORMAT_RAW, filters=filters)
    return 8.0 * len(stream)


def zstd_bits(texts: Sequence[bytes], level: int) -> float:
    """One zstd frame of all texts."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=False)
    return 8.0 * len(compressor.compress(SEPARATOR.join(texts)))


def primed_zstd_bits(texts: Sequence[bytes], dictionary: bytes, level: int) -> list[float]:
    """A zstd frame for each text, without header fields, with `dictionary` as text seen before."""
    content = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    window_log = min(zstandard.WINDOWLOG_MAX, max(20, math.ceil(math.log2(len(dictionary) + 1))))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(dictionary),
        window_log=window_log,
        write_checksum=False,
        write_dict_id=False,
        write_content_size=False,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )
    content.precompute_compress(compression_params=parameters)
    compressor = zstandard.ZstdCompressor(dict_data=content, compression_params=parameters)
    return [8.0 * len(compressor.compress(text)) for text in texts]


def training_text(texts: Iterable[str], max_bytes: int) -> bytes:
    """The texts joined, as many whole ones as fit."""
    parts: list[bytes] = []
    size = 0
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass") + SEPARATOR
        if size + len(encoded) > max_bytes:
            break
        parts.append(encoded)
        size += len(encoded)
    return b"".join(parts)
