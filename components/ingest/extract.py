"""HTML and Markdown to plain text."""

from functools import cache
from itertools import pairwise

from markdown_it import MarkdownIt
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree


def html_to_text(html: str, extractor: str) -> str:
    """The readable text of a page; blocks are kept apart by blank lines. Empty if there is none.

    `resiliparse_main` leaves out what looks like navigation, `resiliparse_all` keeps every visible
    word, `trafilatura` is about ten times slower and stricter about boilerplate.
    """
    if extractor == "trafilatura":
        import trafilatura

        return (trafilatura.extract(html, fast=True) or "").strip()
    return extract_plain_text(
        html, main_content=extractor == "resiliparse_main", alt_texts=False
    ).strip()


def mallard_to_text(page: str) -> str:
    """A page of GNOME's help, whose XML reads like HTML but for the credits in `<info>`."""
    return extract_plain_text(page, skip_elements=["info"], alt_texts=False).strip()


def html_title(html: str) -> str:
    """What the page's `<title>` says, on one line."""
    return " ".join((HTMLTree.parse(html).title or "").split())


def markdown_to_text(markdown: str) -> str:
    """Markdown without its signs: rendered, then read like a page of which all is content."""
    return html_to_text(_markdown().render(markdown), "resiliparse_all")


def first_heading(markdown: str) -> str:
    """The first `#` heading of a Markdown text, or nothing."""
    tokens = _markdown().parse(markdown)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            return inline.content
    return ""


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")
