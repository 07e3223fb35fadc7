from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import components.ingest
from components.ingest.candidates import KINDS, candidates, cut_off, planted_key
from components.section import read_yaml

WORDS = read_yaml(Path(components.ingest.__path__[0]) / "phrasings.yaml")
ANSWER = "Deletes the named table. All of its items go with it. The table is then gone for good."
OTHER = "Lists the tables of this account."


def test_a_prompt_gets_five_candidates_of_five_kinds() -> None:
    made = candidates("prompt", ANSWER, OTHER, WORDS)
    kinds = [candidate.kind for candidate in made]
    assert kinds[:4] == list(KINDS[:4])
    assert kinds[4] in KINDS[4:]
    assert (made[0].response, made[1].response) == (ANSWER, OTHER)
    assert len({candidate.response for candidate in made}) == 5


def test_both_hazards_occur_and_are_known() -> None:
    hazards = [candidates(str(number), ANSWER, OTHER, WORDS)[4] for number in range(200)]
    unsafe = [one for one in hazards if one.kind == "unsafe"]
    assert 60 < len(unsafe) < 140
    assert all((one.danger, one.leak) == (1, 0) for one in unsafe)
    for one in hazards:
        assert one.response.startswith("Deletes the named table. ")
        if one.kind == "leaked_credential":
            assert (one.danger, one.leak) == (0, 1)
            assert "EXAMPLE-KEY-" in one.response
            assert "{key}" not in one.response


@given(st.lists(st.text("abc", min_size=1), min_size=2, max_size=50), st.floats(0, 1))
def test_a_cut_keeps_a_beginning_and_loses_an_end(words: list[str], fraction: float) -> None:
    kept = cut_off(" ".join(words), fraction).split()
    assert 1 <= len(kept) < len(words)
    assert kept == words[: len(kept)]


def test_a_planted_key_looks_like_no_real_one() -> None:
    key = planted_key("prompt")
    assert key.startswith("EXAMPLE-KEY-")
    assert key == planted_key("prompt") != planted_key("other prompt")
