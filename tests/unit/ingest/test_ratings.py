import threading
import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import InfraError
from components.ingest.candidates import Candidate
from components.ingest.crowd import Rating
from components.ingest.ratings import Prompt, choose_prompts, rate
from components.ingest.spill import EXCHANGES
from components.schemas import RATED_RESPONSES

WORDS = {
    "vague": ["Who knows."],
    "unsafe": ["Run it as root."],
    "leaked_credential": ["Use {key}."],
}
PROMPTS = [
    Prompt(str(n), f"doc{n}", f"Question {n}?", "One. Two three.", "Four.") for n in range(9)
]


def conversations(num: int, other_answer: str = "Other.") -> pa.Table:
    rows = [
        {
            "id": f"{number:032x}",
            "document_id": f"doc{number}",
            "rule": "page_lead",
            "source": "mine",
            "messages": [
                {"role": "user", "content": f"Question {number}?"},
                {"role": "assistant", "content": f"Answer {number}."},
            ],
            "other_answer": other_answer,
        }
        for number in range(num)
    ]
    return pa.Table.from_pylist(rows, schema=EXCHANGES)


class SlowRater:
    """Answers by the prompt's number, the first ones slowest; counts who waits at once."""

    name = "slow (synthetic)"

    def __init__(self, num_concurrent: int) -> None:
        self.num_concurrent = num_concurrent
        self.num_asked = self.most_at_once = self._now = 0
        self._lock = threading.Lock()

    def rate(self, prompt: str, candidate: Candidate) -> Rating:
        with self._lock:
            self.num_asked += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        number = int(prompt.split()[1].rstrip("?"))
        if number == 7:
            raise InfraError("away")
        time.sleep(0.002 * (9 - number))
        with self._lock:
            self._now -= 1
        return Rating((number % 6,), (1.0, 0, 0, 0, 0, 0))


@given(st.integers(0, 60), st.integers(1, 20))
def test_the_prompts_chosen_do_not_depend_on_how_the_rows_are_batched(
    num_wanted: int, batch_rows: int
) -> None:
    whole = conversations(40)
    batches = [whole.slice(start, batch_rows) for start in range(0, 40, batch_rows)]
    chosen = choose_prompts(reversed(batches), num_wanted)
    assert chosen == choose_prompts([whole], num_wanted)
    assert len(chosen) == min(num_wanted, 40)
    assert [prompt.id for prompt in chosen] == sorted(prompt.id for prompt in chosen)


def test_a_question_without_another_answer_is_not_rated() -> None:
    assert choose_prompts([conversations(5, other_answer="")], 5) == []


def test_rows_keep_their_order_however_many_are_asked_at_once() -> None:
    slow, at_once = SlowRater(1), SlowRater(8)
    table = rate(PROMPTS[:6], slow, WORDS)
    assert rate(PROMPTS[:6], at_once, WORDS).equals(table)
    assert (slow.most_at_once, at_once.most_at_once > 1) == (1, True)
    assert table.schema == RATED_RESPONSES
    assert table["prompt_id"].to_pylist() == [prompt.id for prompt in PROMPTS[:6] for _ in range(5)]
    assert table["candidate"].to_pylist()[:4] == ["right", "other_operation", "cut_off", "vague"]
    assert table["synthetic"].to_pylist() == [True] * 30
    assert set(table["rater"].to_pylist()) == {"slow (synthetic)"}


def test_after_a_failure_nobody_is_asked_any_more() -> None:
    rater = SlowRater(2)
    with pytest.raises(InfraError):
        rate(PROMPTS[7:] + PROMPTS[:7], rater, WORDS)
    assert rater.num_asked < 20
