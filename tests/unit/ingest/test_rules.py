from hypothesis import given
from hypothesis import strategies as st

from components.ingest.api_models import Member, Operation
from components.ingest.rules import first_sentences, operation_exchanges, page_exchange

QUESTIONS = {
    "operation_purpose": ["What does {operation} of {service} do?"],
    "parameter_meaning": ["What is {parameter} of {operation} in {service}?"],
    "page_lead": ["What does {title} say?"],
}


def member(name: str, documentation: str) -> Member:
    return Member(name, "string", required=True, documentation=documentation)


OPERATION = Operation(
    service="Example Store",
    name="PutThing",
    path="store/2020/PutThing",
    documentation="<p>Stores <code>thing</code>. Replaces an older one.</p><ul><li>Item</li></ul>",
    parameters=(
        member("Name", "<p>The name of the thing.</p>"),
        member("Size", ""),
        member("Note", "<p>Short.</p>"),
    ),
    output=(),
)


def test_sentences_are_taken_whole_while_they_fit() -> None:
    text = "One two. Three four. Five six."
    assert first_sentences(text, 1, 20) == "One two. Three four."
    assert first_sentences(text, 1, 19) == "One two."
    assert first_sentences(text, 1, 7) == ""


def test_an_abbreviation_does_not_end_a_sentence() -> None:
    text = "Use a name, e.g. Alpha or i.e. Beta. Then go on."
    assert first_sentences(text, 1, 40) == "Use a name, e.g. Alpha or i.e. Beta."


def test_a_list_and_the_sentence_that_announces_it_are_left_out() -> None:
    text = "It copies files.\n\nThese are the modes:\n\n  • fast\n\n  • slow"
    assert first_sentences(text, 1, 500) == "It copies files."


def test_an_answer_that_is_too_short_is_none() -> None:
    assert first_sentences("Yes.", 5, 100) == ""


@given(st.text("aB. :\n•", max_size=200), st.integers(1, 60))
def test_an_answer_is_on_one_line_and_never_too_long(text: str, max_chars: int) -> None:
    answer = first_sentences(text, 1, max_chars)
    assert len(answer) <= max_chars
    assert "\n" not in answer
    assert not answer.endswith(":")


def test_an_operation_gives_its_purpose_and_its_parameters() -> None:
    exchanges = list(operation_exchanges(OPERATION, QUESTIONS, 5, 10, 100))
    assert [(one.rule, one.topic, one.question, one.answer) for one in exchanges] == [
        (
            "operation_purpose",
            "PutThing",
            "What does PutThing of Example Store do?",
            "Stores thing. Replaces an older one.",
        ),
        (
            "parameter_meaning",
            "Name",
            "What is Name of PutThing in Example Store?",
            "The name of the thing.",
        ),
    ]


def test_no_more_parameters_than_wanted_are_asked_for() -> None:
    rules = [one.rule for one in operation_exchanges(OPERATION, QUESTIONS, 0, 10, 100)]
    assert rules == ["operation_purpose"]


def test_a_page_answers_with_what_follows_its_title() -> None:
    exchange = page_exchange("Set up", "Set up\n\nPlug it in first.", QUESTIONS, 5, 100)
    assert exchange is not None
    assert (exchange.question, exchange.answer) == ("What does Set up say?", "Plug it in first.")


def test_a_page_without_a_title_asks_nothing() -> None:
    assert page_exchange(" ", "Plug it in first.", QUESTIONS, 5, 100) is None
