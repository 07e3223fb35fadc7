"""Special tokens, and token shards: how encoded documents lie on disk, memory-mapped.

The special ids are Yi's (arXiv 2403.04652; ids from its published tokenizer).
"""

UNKNOWN_ID = 0
START_OF_TEXT_ID = 1
END_OF_TEXT_ID = 2
IM_START_ID = 6
IM_END_ID = 7
IM_SEP_ID = 8

SPECIAL_TOKENS = (
    "<unk>",
    "<|startoftext|>",
    "<|endoftext|>",
    "<|reserved_0|>",
    "<|reserved_1|>",
    "<|reserved_2|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
)
"""In the order of their ids; 3 to 5 are reserved so that the named ones keep Yi's ids."""
