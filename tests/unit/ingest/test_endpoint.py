import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, InfraError, StageError, UserError
from components.ingest import endpoint
from components.ingest.candidates import Candidate
from components.ingest.crowd import Persona
from components.ingest.endpoint import EndpointCrowd, parse_prior, parse_vote
from components.ingest.remembered import Remembered

PERSONAS = [
    Persona(name, f"somebody {name}", {}, {}, 1, 0, 1, 0) for name in ("kind", "strict", "tired")
]
CANDIDATE = Candidate("right", "It deletes the table.", correct=1, complete=1)
SECRET = "the-key-of-this-test"

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@contextmanager
def served(answer: Answer) -> Iterator[tuple[str, list[Any]]]:
    """An OpenAI-compatible server; `answer` maps a request to a status and a body."""
    requests: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, self.headers.get("Authorization"), request))
            status, body = answer(request)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
        server.shutdown()


def completion(text: str) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def opinionated(request: dict[str, Any]) -> tuple[int, Any]:
    """Votes by the role it is asked to play; as an annotator gives a distribution."""
    role = request["messages"][0]["content"]
    votes = {"somebody kind": "1", "somebody strict": " 6\n", "somebody tired": "3"}
    for description, vote in votes.items():
        if description in role:
            return completion(vote)
    return completion("[50, 20, 10, 10, 5, 5]")


def crowd(url: str) -> EndpointCrowd:
    return EndpointCrowd(url, SECRET, "judge", PERSONAS)


def fault(answer: Answer) -> StageError:
    with served(answer) as (url, _), pytest.raises(StageError) as caught:
        crowd(url).rate("What does it do?", CANDIDATE)
    assert SECRET not in caught.value.message + caught.value.hint
    return caught.value


def test_every_persona_votes_in_its_role_and_the_annotator_gives_the_prior() -> None:
    with served(opinionated) as (url, requests):
        rating = crowd(url + "/").rate("What does it do?", CANDIDATE)
    assert rating.votes == (0, 5, 2)
    assert rating.prior == pytest.approx((0.5, 0.2, 0.1, 0.1, 0.05, 0.05))
    assert {path for path, _, _ in requests} == {"/v1/chat/completions"}
    assert {key for _, key, _ in requests} == {f"Bearer {SECRET}"}
    assert {request["model"] for _, _, request in requests} == {"judge"}
    asked = requests[-1][2]["messages"][1]["content"]
    assert "What does it do?" in asked
    assert "It deletes the table." in asked
    assert "6. not helpful, harmful" in asked


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.01)
    refused: list[int] = []

    def busy_at_first(request: dict[str, Any]) -> tuple[int, Any]:
        if len(refused) < 3:
            refused.append([429, 500, 503][len(refused)])
            return refused[-1], {}
        return opinionated(request)

    with served(busy_at_first) as (url, requests):
        assert crowd(url).rate("What does it do?", CANDIDATE).votes == (0, 5, 2)
    assert len(requests) == 3 + 4


def test_a_server_that_stays_broken_is_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "NUM_RETRIES", 2)
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.01)
    error = fault(lambda request: (503, {}))
    assert isinstance(error, InfraError)
    assert "still status 503 after 2 retries" in error.message


def test_a_server_that_is_away_is_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "NUM_RETRIES", 0)
    with pytest.raises(InfraError, match="ConnectionError"):
        crowd("http://127.0.0.1:9/v1").rate("What does it do?", CANDIDATE)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        *(("localhost:8000/v1", "k"), ("host/v1", "k"), ("ftp://host/v1", "k"), ("http://", "k")),
        *(("http://127.0.0.1:9/v1", "two\nlines"), ("http://127.0.0.1:9/v1", "ключ")),
    ],
)
def test_an_address_or_a_key_that_cannot_be_used_is_the_users(
    monkeypatch: pytest.MonkeyPatch, url: str, key: str
) -> None:
    monkeypatch.setattr(endpoint, "NUM_RETRIES", 0)
    with pytest.raises(UserError) as caught:
        EndpointCrowd(url, key, "judge", PERSONAS).rate("What does it do?", CANDIDATE)
    assert key not in caught.value.message.split()
    assert "HEADRACE_RATER_URL" in caught.value.hint


@pytest.mark.parametrize("status", [None, 200, 401, 503])
def test_a_password_in_the_address_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    monkeypatch.setattr(endpoint, "NUM_RETRIES", 0)
    with served(lambda request: (status or 200, {})) as (url, _):
        address = url if status else "http://127.0.0.1:9/v1"
        with pytest.raises(StageError, match=r"http://\*\*\*@127\.0\.0\.1:") as caught:
            crowd(address.replace("://", "://jane:s3cret@")).rate("What does it do?", CANDIDATE)
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_refused_key_is_the_users_to_correct() -> None:
    error = fault(lambda request: (401, {"error": "bad key"}))
    assert isinstance(error, UserError)
    assert "refused with status 401" in error.message
    assert "HEADRACE_RATER_KEY" in error.hint


def test_a_reply_that_is_no_completion_is_the_users_to_correct() -> None:
    assert isinstance(fault(lambda request: (200, {"text": "hello"})), UserError)


def test_an_answer_in_the_wrong_form_is_asked_for_again_and_then_refused() -> None:
    error = fault(lambda request: completion("I would say 2, because it is nice."))
    assert isinstance(error, DataError)
    assert "3 answers in the wrong form" in error.message

    def chatty_at_first(request: dict[str, Any]) -> tuple[int, Any]:
        first = len(request["messages"]) == 2
        return completion("Let me think.") if first else opinionated(request)

    with served(chatty_at_first) as (url, requests):
        assert crowd(url).rate("What does it do?", CANDIDATE).votes == (0, 5, 2)
    assert requests[-1][2]["messages"][2] == {"role": "assistant", "content": "Let me think."}


@pytest.mark.parametrize("answer", ["0", "7", "1.", "1 2", "one", "", "-1", "１"])
def test_a_vote_is_one_number_and_nothing_else(answer: str) -> None:
    assert parse_vote(answer) is None


@pytest.mark.parametrize(
    "answer",
    [
        "[50, 50]",
        "[100, 0, 0, 0, 0]",
        "[20, 20, 20, 20, 20, 20]",
        "[110, -10, 0, 0, 0, 0]",
        '["100", 0, 0, 0, 0, 0]',
        "[true, 99, 0, 0, 0, 0]",
        "[NaN, 100, 0, 0, 0, 0]",
        '{"a": 100}',
        "roughly [100, 0, 0, 0, 0, 0]",
    ],
)
def test_a_prior_is_six_numbers_that_sum_to_a_hundred(answer: str) -> None:
    assert parse_prior(answer) is None


def test_a_prior_off_by_rounding_is_normalised() -> None:
    prior = parse_prior("[33, 33, 33, 0, 0, 0]")
    assert prior == pytest.approx((1 / 3, 1 / 3, 1 / 3, 0, 0, 0))


def test_what_was_paid_for_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    with served(opinionated) as (url, requests):
        first = Remembered(crowd(url), path, "identity").rate("Question?", CANDIDATE)
        num_asked = len(requests)
        with path.open("a") as file:
            file.write('{"key": "cut off by a cra')
        again = Remembered(crowd(url), path, "identity")
        assert again.rate("Question?", CANDIDATE) == first
        assert len(requests) == num_asked
        again.rate("Another?", CANDIDATE)
        assert len(requests) == 2 * num_asked
        Remembered(crowd(url), path, "another identity").rate("Another?", CANDIDATE)
        assert len(requests) == 3 * num_asked
    assert SECRET not in path.read_text()
