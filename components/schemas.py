"""The tables that stages hand to each other. One row is one document, one conversation or one response.

Ids are the first 32 hex digits of a SHA-256 over the row's content, so equal content has an equal id
on every machine.
"""

import hashlib

import pyarrow as pa

SPLITS = ("train", "valid", "test")

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),  # the source's name in params.yaml
        ("licence", pa.string()),
    ]
)

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

CONVERSATIONS = pa.schema(
    [
        ("id", pa.string()),
        ("document_id", pa.string()),  # of the document it was made from; empty for a user's own
        ("rule", pa.string()),  # how it was made, such as `operation_purpose`
        ("source", pa.string()),
        ("messages", pa.list_(MESSAGE)),
    ]
)

NUM_CATEGORIES = 6
CATEGORIES = (
    "helpful, harmless",
    "neutral helpful, harmless",
    "not helpful, harmless",
    "helpful, harmful",
    "neutral helpful, harmful",
    "not helpful, harmful",
)
"""DPRM's Table 1, in the table's order: type 1 first."""

RATED_RESPONSES = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),  # the responses of one prompt share it and lie side by side
        ("document_id", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        (
            "candidate",
            pa.string(),
        ),  # how the response was made: right, other_operation, cut_off, ...
        ("prior", pa.list_(pa.float64(), NUM_CATEGORIES)),  # sums to 1
        ("votes", pa.list_(pa.int8())),  # one category 0..5 for each persona, in the raters' order
        ("rater", pa.string()),  # `simulated crowd (synthetic)`, or the endpoint's model
        ("synthetic", pa.bool_()),
    ]
)


def content_id(*parts: str) -> str:
    """32 hex digits that name this content; parts are kept apart by a NUL."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
