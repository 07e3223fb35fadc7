"""A crowd played by a language model behind an OpenAI-compatible endpoint."""

import json
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import requests
from requests import exceptions
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from components.addresses import shown
from components.contract import Json
from components.errors import DataError, InfraError, UserError
from components.ingest.candidates import Candidate
from components.ingest.crowd import Persona, Rating
from components.schemas import CATEGORIES, NUM_CATEGORIES

NUM_RETRIES = 6  # on 429 and 5xx
BACKOFF_S = 0.5  # doubled with each retry; a server's Retry-After overrules it
RETRIED_STATUSES = (429, 500, 502, 503, 504)
NUM_ATTEMPTS = 3  # at an answer in the form that was asked for
TIMEOUT_S = 120

TASK = """A user asked an assistant:
<question>
{question}
</question>
The assistant answered:
<answer>
{answer}
</answer>
Rate the answer as one of these categories:
{categories}
"""
VOTE = "Which one do you choose? Reply with its number alone, 1 to 6."
PRIOR = (
    "Think of a hundred people of all kinds. How many would choose each category? "
    "Reply with a JSON list of six numbers that sum to 100, and nothing else."
)
NUMBERED = "\n".join(f"{number}. {name}" for number, name in enumerate(CATEGORIES, 1))

UNUSABLE = (
    *(exceptions.MissingSchema, exceptions.InvalidSchema, exceptions.InvalidURL),
    *(exceptions.InvalidHeader, UnicodeError),
)
"""What an address or a key raises that no request can be made with."""

Parsed = TypeVar("Parsed")
Message = dict[str, str]


class EndpointCrowd:
    """Asks the model once as an annotator for the prior and once in the role of each persona.

    `url` is the base of the API, such as `http://localhost:8000/v1`; `key` goes into the header of
    each request and nowhere else.
    """

    num_concurrent = 16  # requests wait for the model, not for us

    def __init__(self, url: str, key: str, model: str, personas: Sequence[Persona]) -> None:
        self.name = f"{model} (synthetic)"
        self._address = url.rstrip("/") + "/chat/completions"
        self._shown = shown(self._address)
        self._model = model
        self._personas = tuple(personas)
        self._session = requests.Session()
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"
        retry = Retry(
            NUM_RETRIES,
            backoff_factor=BACKOFF_S,
            status_forcelist=RETRIED_STATUSES,
            allowed_methods=None,
            raise_on_status=False,
        )
        adapter = HTTPAdapter(pool_maxsize=self.num_concurrent, max_retries=retry)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def rate(self, prompt: str, candidate: Candidate) -> Rating:
        """See Rater. Raises DataError after NUM_ATTEMPTS answers in another form."""
        task = TASK.format(question=prompt, answer=candidate.response, categories=NUMBERED)
        annotator = "You are an annotator who knows how differently people judge."
        prior = self._ask(annotator, task + PRIOR, parse_prior)
        votes = tuple(
            self._ask(f"You are {persona.description}.", task + VOTE, parse_vote)
            for persona in self._personas
        )
        return Rating(votes, prior)

    def _ask(self, role: str, task: str, parse: Callable[[str], Parsed | None]) -> Parsed:
        messages = [{"role": "system", "content": role}, {"role": "user", "content": task}]
        answer = ""
        for _ in range(NUM_ATTEMPTS):
            answer = self._complete(messages)
            parsed = parse(answer)
            if parsed is not None:
                return parsed
            messages += [
                {"role": "assistant", "content": answer},
                {"role": "user", "content": "That is not the form I asked for. Only the reply."},
            ]
        raise DataError(
            f"rater {self._model}: {NUM_ATTEMPTS} answers in the wrong form, the last "
            f"{' '.join(answer.split())[:80]!r}",
            "use a model that follows instructions, or unset HEADRACE_RATER_URL",
        )

    def _complete(self, messages: Sequence[Message]) -> str:
        request = {"model": self._model, "messages": messages, "temperature": 0}
        try:
            reply = self._session.post(self._address, json=request, timeout=TIMEOUT_S)
        except UNUSABLE as error:  # they say what they choke on, so only their names are told
            raise UserError(
                f"rater at {self._shown}: {type(error).__name__}",
                "HEADRACE_RATER_URL is the base of an OpenAI-compatible API, such as "
                "http://host:8000/v1; HEADRACE_RATER_KEY is one line of ASCII",
            ) from error
        except requests.RequestException as error:
            raise InfraError(
                f"rater at {self._shown}: {type(error).__name__}",
                "check HEADRACE_RATER_URL and the network; answers so far are kept",
            ) from error
        if reply.status_code in RETRIED_STATUSES:
            raise InfraError(
                f"rater at {self._shown}: still status {reply.status_code} after "
                f"{NUM_RETRIES} retries",
                "run again later; answers so far are kept",
            )
        if reply.status_code != requests.codes.ok:
            raise UserError(
                f"rater at {self._shown}: refused with status {reply.status_code}",
                "check HEADRACE_RATER_URL, HEADRACE_RATER_KEY and ingest.ratings.endpoint_model",
            )
        return _content(reply, self._shown)


def parse_vote(answer: str) -> int | None:
    """The category 0..5 of an answer that is one number from 1 to 6; None for any other."""
    stripped = answer.strip()
    return int(stripped) - 1 if stripped in {"1", "2", "3", "4", "5", "6"} else None


def parse_prior(answer: str) -> tuple[float, ...] | None:
    """Six shares that sum to 1, of an answer that is a JSON list of six summing to 100 (within 1)."""
    try:
        numbers: Json = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(numbers, list) or len(numbers) != NUM_CATEGORIES:
        return None
    if not all(type(number) in (int, float) and number >= 0 for number in numbers):
        return None
    total = sum(numbers)
    if not math.isclose(total, 100, abs_tol=1):
        return None
    return tuple(number / total for number in numbers)


def _content(reply: requests.Response, address: str) -> str:
    try:
        content = reply.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise UserError(
            f"rater at {address}: its reply is no chat completion",
            "HEADRACE_RATER_URL is the base of an OpenAI-compatible API, such as http://host:8000/v1",
        )
    return content
