"""What a user brings beside documents: conversations and rated responses."""

import math
from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.contract import Json
from components.errors import DataError, UserError
from components.ingest.formats import bad_line, format_of, json_lines, open_bytes, told
from components.ingest.params import SourceParams
from components.ingest.sources import SourceFile
from components.ingest.spill import Row
from components.schemas import NUM_CATEGORIES, content_id

ROLES = ("system", "user", "assistant")
ROWS_PER_BATCH = 256
UNIFORM = [1 / NUM_CATEGORIES] * NUM_CATEGORIES


def conversations(source: SourceParams, file: SourceFile, skipped: Counter[str]) -> Iterator[Row]:
    """CONVERSATIONS rows of a file, each checked.

    JSONL and Parquet: a column `messages`, a list of `{"role", "content"}`, at least two, the last
    by the assistant. chatterbot: its YAML, the speakers taking turns; `skipped` counts dialogues
    with `no_answer` or a `blank_turn`. Raises DataError, naming source, file and line.
    """
    for number, messages in _dialogues(source, file, skipped):
        wrong = _wrong_messages(messages)
        if wrong:
            raise bad_line(source, file, number, wrong)
        spoken = [part for message in messages for part in (message["role"], message["content"])]
        yield {
            "id": content_id(source.name, f"{file.name}#{number}", *spoken),
            "document_id": "",
            "rule": "own",
            "source": source.name,
            "messages": [
                {name: message[name] for name in ("role", "content")} for message in messages
            ],
        }


def _dialogues(
    source: SourceParams, file: SourceFile, skipped: Counter[str]
) -> Iterator[tuple[int, Json]]:
    with told(source, file):
        match format_of(source, file.name):
            case "jsonl":
                for number, row in json_lines(source, file):
                    yield number, row.get("messages")
            case "parquet":
                with pq.ParquetFile(file.path) as parquet:
                    if "messages" not in parquet.schema_arrow.names:
                        raise DataError(
                            f"source {source.name}: {file.name}: no column 'messages'",
                            "a conversation is a list of {role, content} in that column",
                        )
                    number = 0
                    for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=["messages"]):
                        for row in batch.to_pylist():
                            number += 1
                            yield number, row["messages"]
            case "chatterbot":
                yield from _chatterbot(source, file, skipped)
            case other:
                raise _no_reader(source, file, other, "jsonl, parquet and chatterbot")


def _chatterbot(
    source: SourceParams, file: SourceFile, skipped: Counter[str]
) -> Iterator[tuple[int, Json]]:
    """Dialogues of a chatterbot-corpus file; a last turn without an answer is left out."""
    for number, turns in enumerate(_chatterbot_dialogues(source, file), 1):
        if isinstance(turns, str):  # somebody speaks to nobody; the corpus has a few
            skipped["no_answer"] += 1
            continue
        wrong = _wrong_turns(turns)
        if wrong:
            raise DataError(
                f"source {source.name}: {file.name}: dialogue {number} {wrong}",
                "correct or remove the dialogue",
            )
        spoken = [str(turn).strip() for turn in turns[: len(turns) // 2 * 2]]
        if not spoken:
            skipped["no_answer"] += 1
        elif not all(spoken):
            skipped["blank_turn"] += 1
        else:
            yield (
                number,
                [
                    {"role": ROLES[1 + index % 2], "content": turn}
                    for index, turn in enumerate(spoken)
                ],
            )


def _chatterbot_dialogues(source: SourceParams, file: SourceFile) -> list[Json]:
    """The list under `conversations`. Raises DataError if there is none."""
    with open_bytes(file.path) as content:
        try:
            document = YAML(typ="safe", pure=True).load(content)
            found = document.get("conversations") if isinstance(document, dict) else None
            problem = "" if isinstance(found, list) else "no list under 'conversations'"
        except (YAMLError, TypeError, RecursionError) as error:
            found, problem = None, (str(error).splitlines() or ["not YAML"])[0]
    if problem:
        raise DataError(
            f"source {source.name}: {file.name}: no chatterbot dialogues in it ({problem})",
            "correct or leave out the file",
        )
    return list(found or ())


def _wrong_turns(turns: Json) -> str:
    """What is wrong with a dialogue, or nothing. YAML reads `4` as a number and `-` as nothing."""
    if not isinstance(turns, list):
        return f"is no list of turns but {turns!r}"[:80]
    for number, turn in enumerate(turns, 1):
        if turn is None or isinstance(turn, dict | list):
            return f"has a turn {number} that is no text but {turn!r}"[:80]
    return ""


def _wrong_messages(messages: Json) -> str:
    """What is wrong with a conversation, or nothing."""
    if not isinstance(messages, list) or len(messages) < 2:
        return "has no 'messages' of at least two"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"has a message whose role is not one of {', '.join(ROLES)}"
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            return "has a message without content"
    return "" if messages[-1]["role"] == "assistant" else "does not end with the assistant"


def ratings(source: SourceParams, file: SourceFile) -> Iterator[list[Row]]:
    """RATED_RESPONSES rows of a JSONL file, those of one prompt together, each checked.

    A line is `{"prompt": ..., "responses": [{"response": ..., "votes": [0..5, ...]}, ...]}`; a
    response may say `prior` (six shares; uniform if left out) and `candidate`; a line may say
    `rater`, and `synthetic` if no people voted. Raises DataError, naming source, file and line.
    """
    with told(source, file):
        form = format_of(source, file.name)
        if form != "jsonl":
            raise _no_reader(source, file, form, "jsonl")
        for number, row in json_lines(source, file):
            wrong = _wrong_ratings(row)
            if wrong:
                raise bad_line(source, file, number, wrong)
            prompt_id = content_id("prompt", source.name, f"{file.name}#{number}", row["prompt"])
            yield [
                {
                    "id": content_id(prompt_id, str(position), response["response"]),
                    "prompt_id": prompt_id,
                    "document_id": "",
                    "prompt": row["prompt"],
                    "response": response["response"],
                    "candidate": response.get("candidate", "own"),
                    "prior": [float(share) for share in response.get("prior", UNIFORM)],
                    "votes": response["votes"],
                    "rater": row.get("rater", source.name),
                    "synthetic": row.get("synthetic", False),
                }
                for position, response in enumerate(row["responses"])
            ]


def _wrong_ratings(row: dict[str, Json]) -> str:
    """What is wrong with a line of ratings, or nothing."""
    if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        return "has no 'prompt'"
    if not isinstance(row.get("rater", ""), str) or not isinstance(
        row.get("synthetic", False), bool
    ):
        return "has a 'rater' that is no text or a 'synthetic' that is neither true nor false"
    responses = row.get("responses")
    if not isinstance(responses, list) or not responses:
        return "has no 'responses'"
    for response in responses:
        if not isinstance(response, dict) or not isinstance(response.get("response"), str):
            return "has a response without text in 'response'"
        if not isinstance(response.get("candidate", ""), str):
            return "has a 'candidate' that is no text"
        votes = response.get("votes")
        if (
            not isinstance(votes, list)
            or not votes
            or not all(_is_category(vote) for vote in votes)
        ):
            return f"has a response whose 'votes' are not categories 0 to {NUM_CATEGORIES - 1}"
        prior = response.get("prior", UNIFORM)
        if not _is_distribution(prior):
            return f"has a 'prior' that is not {NUM_CATEGORIES} shares that sum to 1"
    return ""


def _is_category(vote: Json) -> bool:
    return isinstance(vote, int) and not isinstance(vote, bool) and 0 <= vote < NUM_CATEGORIES


def _is_distribution(prior: Json) -> bool:
    return (
        isinstance(prior, list)
        and len(prior) == NUM_CATEGORIES
        and all(isinstance(share, int | float) and 0 <= share <= 1 for share in prior)
        and math.isclose(sum(prior), 1.0, abs_tol=1e-6)
    )


def _no_reader(source: SourceParams, file: SourceFile, form: str, known: str) -> UserError:
    return UserError(
        f"source {source.name}: {file.name}: {source.content} cannot be read from {form}",
        f"formats for {source.content}: {known}",
    )
