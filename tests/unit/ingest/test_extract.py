import pytest

from components.ingest.extract import (
    first_heading,
    html_title,
    html_to_text,
    mallard_to_text,
    markdown_to_text,
)

WEB_PAGE = """<!DOCTYPE html><html><head><title> On
 pumps </title><style>p {color: red}</style></head><body>
<nav class="menu"><ul><li><a href="/a">Home</a></li><li><a href="/b">Contact us</a></li></ul></nav>
<main><h1>On pumps</h1>
<p>A pump moves a fluid by mechanical action, and it does so for as long as it is driven.</p>
<p>There are many kinds of them, of which the centrifugal one is by far the most common.</p></main>
<footer id="footer"><p>Copyright, imprint and cookies</p></footer>
<script>alert("no")</script></body></html>"""


@pytest.mark.parametrize("extractor", ["resiliparse_main", "trafilatura"])
def test_navigation_is_left_out_and_the_text_stays(extractor: str) -> None:
    text = html_to_text(WEB_PAGE, extractor)
    assert "A pump moves a fluid by mechanical action" in text
    assert "the most common." in text
    for noise in ("Contact us", "cookies", "alert", "color"):
        assert noise not in text


def test_every_visible_word_stays_if_all_are_wanted() -> None:
    text = html_to_text(WEB_PAGE, "resiliparse_all")
    assert "Contact us" in text
    assert "cookies" in text
    assert "alert" not in text


@pytest.mark.parametrize("extractor", ["resiliparse_main", "resiliparse_all", "trafilatura"])
@pytest.mark.parametrize("html", ["", "<html></html>", "<p> \n </p>"])
def test_a_page_without_text_is_empty(html: str, extractor: str) -> None:
    assert html_to_text(html, extractor) == ""


def test_a_title_is_one_line() -> None:
    assert html_title(WEB_PAGE) == "On pumps"
    assert html_title("<p>none</p>") == ""


def test_markdown_loses_its_signs_and_keeps_its_words() -> None:
    markdown = "# Pumps\n\nThey *move* [fluids](http://example.com).\n\n- one\n- two\n\n    code\n"
    text = markdown_to_text(markdown)
    assert text.split() == ["Pumps", "They", "move", "fluids.", "•", "one", "•", "two", "code"]
    assert first_heading(markdown) == "Pumps"
    assert first_heading("no heading") == ""


def test_the_credits_of_a_help_page_are_left_out() -> None:
    page = """<page xmlns="http://projectmallard.org/1.0/" type="topic" id="x"><info>
      <credit><name>Somebody</name></credit><desc>Short.</desc></info>
      <title>Charge the battery</title><p>Plug it <gui>in</gui>.</p>
      <steps><item><p>Wait.</p></item></steps></page>"""
    text = mallard_to_text(page)
    assert html_title(page) == "Charge the battery"
    assert text.split() == ["Charge", "the", "battery", "Plug", "it", "in.", "Wait."]


def test_a_page_nested_very_deeply_does_no_harm() -> None:
    html = "<div>" * 20_000 + "<p>deep</p>" + "</div>" * 20_000
    assert html_to_text(html, "resiliparse_all") == "deep"
