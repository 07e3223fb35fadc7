import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import DataError, UserError
from components.ingest import own_rows
from components.ingest.own_rows import ratings
from components.ingest.params import SourceParams
from components.ingest.sources import SourceFile
from components.ingest.spill import Row


def source(content: str) -> SourceParams:
    return SourceParams.model_validate(
        {"name": "mine", "kind": "files", "location": "x", "content": content, "licence": "MIT"}
    )


def file_of(path: Path) -> SourceFile:
    return SourceFile(path, path.name, path.stat().st_size)


def conversations(
    of: SourceParams, file: SourceFile, skipped: Counter[str] | None = None
) -> list[Row]:
    counts = Counter() if skipped is None else skipped
    return list(own_rows.conversations(of, file, counts))


def json_lines(path: Path, *rows: Any) -> SourceFile:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file_of(path)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


DIALOGUE = [turn("system", "Be brief."), turn("user", "Hello?"), turn("assistant", "Hi.")]


def test_a_users_conversation_is_taken_as_it_is(tmp_path: Path) -> None:
    row = {"messages": [message | {"extra": 1} for message in DIALOGUE]}
    (found,) = conversations(source("conversations"), json_lines(tmp_path / "a.jsonl", row))
    assert found["messages"] == DIALOGUE
    assert (found["document_id"], found["rule"], found["source"]) == ("", "own", "mine")


def test_the_same_conversation_twice_has_two_ids(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", *[{"messages": DIALOGUE}] * 2)
    assert len({row["id"] for row in conversations(source("conversations"), file)}) == 2


def test_conversations_may_come_as_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"messages": [DIALOGUE]}), tmp_path / "a.parquet")
    (found,) = conversations(source("conversations"), file_of(tmp_path / "a.parquet"))
    assert found["messages"] == DIALOGUE


def test_speakers_of_a_chatterbot_file_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text(
        "categories: [x]\nconversations:\n- - Hi\n  - Hello\n  - Bye\n- - 2 + 2\n  - 4\n"
    )
    found = [row["messages"] for row in conversations(source("conversations"), file_of(path))]
    assert found == [
        [turn("user", "Hi"), turn("assistant", "Hello")],
        [turn("user", "2 + 2"), turn("assistant", "4")],
    ]


def test_a_dialogue_without_an_answer_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text('conversations:\n- hello\n- - Hi\n- []\n- - Hi\n  - ""\n- - Hi\n  - Ho\n')
    skipped: Counter[str] = Counter()
    (found,) = conversations(source("conversations"), file_of(path), skipped)
    assert found["messages"] == [turn("user", "Hi"), turn("assistant", "Ho")]
    assert skipped == {"no_answer": 3, "blank_turn": 1}


@pytest.mark.parametrize(
    ("dialogues", "fault"),
    [
        ("-\n", "dialogue 1 is no list of turns but None"),
        ("- - Hi\n  - Ho\n- 5\n", "dialogue 2 is no list of turns but 5"),
        ("- {a: b}\n", "dialogue 1 is no list of turns but {'a': 'b'}"),
        ("- - Hi\n  -\n", "dialogue 1 has a turn 2 that is no text but None"),
        ("- - Hi\n  - Well: no\n", "dialogue 1 has a turn 2 that is no text but {'Well': 'no'}"),
    ],
)
def test_a_dialogue_that_is_no_list_of_texts_is_named(
    tmp_path: Path, dialogues: str, fault: str
) -> None:
    path = tmp_path / "a.yml"
    path.write_text("conversations:\n" + dialogues)
    with pytest.raises(DataError) as caught:
        conversations(source("conversations"), file_of(path))
    assert caught.value.message == f"source mine: a.yml: {fault}"
    assert caught.value.hint == "correct or remove the dialogue"


@pytest.mark.parametrize(
    "content",
    [
        *("- just a list\n", "a: [unclosed\n", "", "conversations:\n", "conversations: 5\n"),
        *("conversations: {a: b}\n", "conversations: " + "[" * 1000),
    ],
    ids=lambda content: content[:20],
)
def test_a_yaml_file_without_dialogues_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.yml"
    path.write_text(content)
    with pytest.raises(DataError, match=r"source mine: a\.yml: no chatterbot dialogues"):
        conversations(source("conversations"), file_of(path))


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (None, "line 2 has no 'messages' of at least two"),
        (DIALOGUE[:1], "line 2 has no 'messages' of at least two"),
        ([turn("robot", "x"), DIALOGUE[2]], "line 2 has a message whose role is not one of"),
        ([turn("user", " "), DIALOGUE[2]], "line 2 has a message without content"),
        ([DIALOGUE[2], DIALOGUE[1]], "line 2 does not end with the assistant"),
    ],
)
def test_a_bad_conversation_is_named_by_its_line(tmp_path: Path, messages: Any, fault: str) -> None:
    file = json_lines(tmp_path / "a.jsonl", {"messages": DIALOGUE}, {"messages": messages})
    with pytest.raises(DataError, match=fault):
        conversations(source("conversations"), file)


RATED = {
    "prompt": "What is it?",
    "responses": [
        {"response": "A pump.", "votes": [0, 0, 5], "prior": [0.5, 0.5, 0, 0, 0, 0]},
        {"response": "No idea.", "votes": [2], "candidate": "lazy"},
    ],
}


def test_a_users_ratings_keep_their_votes_and_say_they_are_no_simulation(tmp_path: Path) -> None:
    (rows,) = ratings(source("ratings"), json_lines(tmp_path / "a.jsonl", RATED))
    assert [row["votes"] for row in rows] == [[0, 0, 5], [2]]
    assert [row["candidate"] for row in rows] == ["own", "lazy"]
    assert rows[0]["prior"] == [0.5, 0.5, 0, 0, 0, 0]
    assert sum(rows[1]["prior"]) == pytest.approx(1)  # type: ignore[call-overload]
    assert {row["prompt_id"] for row in rows} == {rows[0]["prompt_id"]}
    assert {(row["rater"], row["synthetic"]) for row in rows} == {("mine", False)}


def test_ratings_by_a_machine_may_say_so(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", RATED | {"rater": "judge-7b", "synthetic": True})
    (rows,) = ratings(source("ratings"), file)
    assert {(row["rater"], row["synthetic"]) for row in rows} == {("judge-7b", True)}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"prompt": ""}, "has no 'prompt'"),
        ({"responses": []}, "has no 'responses'"),
        ({"responses": [{"votes": [1]}]}, "has a response without text"),
        ({"responses": [{"response": "x", "votes": [6]}]}, "not categories 0 to 5"),
        ({"responses": [{"response": "x", "votes": [True]}]}, "not categories 0 to 5"),
        ({"responses": [{"response": "x", "votes": []}]}, "not categories 0 to 5"),
        (
            {"responses": [{"response": "x", "votes": [1], "prior": [1, 1, 0, 0, 0, 0]}]},
            "not 6 shares that sum to 1",
        ),
        (
            {"responses": [{"response": "x", "votes": [1], "prior": [10**400, 0, 0, 0, 0, 0]}]},
            "not 6 shares that sum to 1",
        ),
        ({"synthetic": "no"}, "neither true nor false"),
    ],
)
def test_a_bad_rating_is_named_by_its_line(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    file = json_lines(tmp_path / "a.jsonl", RATED, RATED | change)
    with pytest.raises(DataError, match=rf"source mine: a\.jsonl: line 2 .*{fault}"):
        list(ratings(source("ratings"), file))


def test_a_format_that_holds_no_ratings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>x</p>")
    with pytest.raises(UserError, match="ratings cannot be read from html"):
        list(ratings(source("ratings"), file_of(tmp_path / "a.html")))
