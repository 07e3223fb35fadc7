"""The vocabulary: a SentencePiece BPE trained as Yi's (arXiv 2403.04652, section 2.2).

Digits are split, unseen characters fall back to bytes, nothing is normalised, no space is put in
front. Two additions of ours: runs of spaces are kept, so that decoding gives the text back; and
pieces do not cross a line break, because training text is read line by line.
"""

import io
from collections.abc import Iterable, Iterator

import sentencepiece

from components.errors import DataError
from components.tokens import SPECIAL_TOKENS

MAX_LINE_CHARS = 2048
"""SentencePiece drops longer lines than its limit in bytes, so they are cut before."""


def train_sentencepiece(texts: Iterable[str], *, vocab_size: int, coverage: float) -> bytes:
    """A trained SentencePiece model, serialised; equal for equal texts.

    `coverage` is the share of characters that get a piece of their own; the others become bytes.
    Raises DataError when the text is too small for the vocabulary.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines_of(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=coverage,
            split_digits=True,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            max_sentence_length=4 * MAX_LINE_CHARS,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            unk_piece=SPECIAL_TOKENS[0],
            bos_piece=SPECIAL_TOKENS[1],
            eos_piece=SPECIAL_TOKENS[2],
            control_symbols=list(SPECIAL_TOKENS[3:]),
            # One thread: the result then cannot depend on the machine.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f"no vocabulary of {vocab_size} pieces from this text: {reason}",
            "give more text, or lower tokenize.vocab_size",
        ) from error
    return model.getvalue()


def lines_of(texts: Iterable[str]) -> Iterator[str]:
    """Lines that are not blank, cut where they are too long; NUL ends a line in SentencePiece."""
    for text in texts:
        for line in text.replace("\0", "\n").split("\n"):
            if line.strip():
                for begin in range(0, len(line), MAX_LINE_CHARS):
                    yield line[begin : begin + MAX_LINE_CHARS]
