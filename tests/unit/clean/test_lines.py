"""Line correction: what RefinedWeb's rules take, and what they leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.clean.lines import Correction, correct_lines, normalise_lines


def correct(text: str, *rules: str) -> Correction:
    return correct_lines(
        text, rules, min_words=3, max_word_chars=20, max_upper_case_fraction=0.5, max_call_words=10
    )


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("counter", "3 likes"),
        ("counter", "1,204 comments"),
        ("counter", "* 12k views"),
        ("number", "12 / 2024"),
        ("upper_case", "ALL RIGHTS and WRONGS"),
        ("call_to_action", "Sign-in to see more"),
        ("call_to_action", "All about queues. Read more..."),
        ("call_to_action", "3 items in cart"),
        ("long_word", "abcdefghijklmnopqrstuvwxyz is long"),
        ("few_words", "two words"),
        ("few_words", ""),
        ("no_terminal_punctuation", "It goes on and on..."),
        ("javascript", "Please enable JavaScript here."),
        ("policy", "Read our Privacy Policy now."),
    ],
)
def test_a_rule_takes_its_line_and_only_if_it_is_named(rule: str, line: str) -> None:
    text = f"Before it stands a line.\n{line}\nAfter it stands another."
    found = correct(text, rule)
    assert found.text == "Before it stands a line.\nAfter it stands another."
    assert found.removed_lines == {rule: 1}
    assert found.num_removed_words == len(line.split())
    assert correct(text).text == text


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("counter", "The 3 likes of the queue are counted"),
        ("number", "version 12"),
        ("upper_case", "The ARN of the IAM role"),
        ("call_to_action", "subscribedListings (list, required)"),
        (
            "call_to_action",
            "You sign in once, and then every other page of the site knows who you are",
        ),
        ("policy", "The policy is about privacy."),
        ("long_word", "twenty letters at mos"),
    ],
)
def test_a_rule_leaves_a_line_that_only_looks_alike(rule: str, line: str) -> None:
    assert correct(line, rule).text == line


def test_citation_marks_go_and_their_line_stays() -> None:
    found = correct("Queues[12] are old.[citation needed] [edit]", "citation")
    assert found.text == "Queues are old."
    assert found.num_removed_words == 0


def test_lorem_ipsum_and_braces_are_counted_by_line() -> None:
    found = correct("Lorem ipsum dolor.\nlorem ipsum { }\n{ }")
    assert (found.num_lorem_ipsum_lines, found.num_curly_bracket_lines) == (2, 2)


@given(st.text(max_size=80))
def test_normal_lines_have_no_white_space_at_their_ends(text: str) -> None:
    normal = normalise_lines(text)
    assert normal == normal.strip()
    assert all(line == line.rstrip() for line in normal.split("\n"))
    assert normalise_lines(normal) == normal
    assert normal.split() == text.split()
