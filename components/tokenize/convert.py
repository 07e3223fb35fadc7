"""From a SentencePiece model to a transformers fast tokenizer that gives the same ids.

SentencePiece joins the neighbours whose joint piece has the best score; `tokenizers` joins the
pair whose merge comes first. So a merge is listed for every way to split a piece in two known
pieces, in the order of the pieces' scores.
"""

from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from components.chat import CHAT_TEMPLATE
from components.tokens import IM_END_ID, SPECIAL_TOKENS

SPACE = "▁"
NORMAL = 1
"""sentencepiece.ModelProto.SentencePiece.Type"""


def fast_tokenizer(model: bytes) -> Tokenizer:
    """The `tokenizers` twin of a serialised SentencePiece BPE model."""
    schema: Any = sentencepiece_model_pb2
    proto = schema.ModelProto.FromString(model)
    vocab = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    normal = [(piece.piece, piece.score) for piece in proto.pieces if piece.type == NORMAL]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges_of(normal),
            unk_token=SPECIAL_TOKENS[0],
            fuse_unk=False,
            byte_fallback=True,
        )
    )
    # A space begins a word and no piece holds one further in, so cutting there changes nothing
    # but the speed: words are short, and cached.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True),
            pre_tokenizers.Split(Regex("\n"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def merges_of(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Every split of every piece into two pieces, best score first; the longest left half first."""
    known = {piece for piece, _ in pieces}
    return [
        (piece[:cut], piece[cut:])
        for piece, _ in sorted(pieces, key=lambda entry: -entry[1])
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in known and piece[cut:] in known
    ]


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """A transformers tokenizer folder with ChatML as its chat template."""
    wrapper: Any = PreTrainedTokenizerFast
    wrapper(
        tokenizer_object=tokenizer,
        unk_token=SPECIAL_TOKENS[0],
        bos_token=SPECIAL_TOKENS[1],
        eos_token=SPECIAL_TOKENS[2],
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=[SPECIAL_TOKENS[IM_END_ID - 1], SPECIAL_TOKENS[IM_END_ID]],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
