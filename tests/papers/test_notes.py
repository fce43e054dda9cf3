"""The editors' notes: what a little Markdown becomes, and that nothing else gets through."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from papers.notes import MOST, SCHEMES, TAGS, note_html, note_text
from tests.factories import make_frozen_edition, make_paper


class Seen(HTMLParser):
    """Every tag and attribute of a piece of HTML, and whether each tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def check(note: str) -> Seen:
    seen = Seen(note_html(note))
    assert seen.tags <= TAGS
    assert seen.open == []
    for tag, name, value in seen.attributes:
        match (tag, name):
            case ("a", "href"):
                assert value.partition(":")[0].lower() in SCHEMES
            case ("a", "rel"):
                assert value == "nofollow noopener"
            case _:
                assert (tag, name) == ("ol", "start")
                assert value.isdecimal()
    return seen


@pytest.mark.parametrize(
    ("note", "html", "text"),
    [
        ("Read this.", "Read this.", "Read this."),
        ("One line.\nAnother.", "One line.<br>\nAnother.", "One line.\nAnother."),
        ("A.\n\nB.", "A.\n<p>B.</p>", "A.\n\nB."),
        ("*a* **b** `c<d`", "<em>a</em> <strong>b</strong> <code>c&lt;d</code>", "a b c<d"),
        (
            "See [the code](https://e.example/?a=1&b=2).",
            'See <a href="https://e.example/?a=1&amp;b=2" rel="nofollow noopener">the code</a>.',
            "See the code (https://e.example/?a=1&b=2).",
        ),
        (
            "<https://e.example/> <ed@e.example>",
            '<a href="https://e.example/" rel="nofollow noopener">https://e.example/</a> '
            '<a href="mailto:ed@e.example" rel="nofollow noopener">ed@e.example</a>',
            "https://e.example/ ed@e.example",
        ),
        (
            "Why:\n- new\n- fast\n\nSo.",
            "Why:\n<ul>\n<li>new</li>\n<li>fast</li>\n</ul>\n<p>So.</p>",
            "Why:\n- new\n- fast\n\nSo.",
        ),
        ("3. c\n4. d", '<ol start="3">\n<li>c</li>\n<li>d</li>\n</ol>', "3. c\n4. d"),
        ("> q\n> r", "<blockquote>\n<p>q<br>\nr</p>\n</blockquote>", "> q\n> r"),
        ("", "", ""),
    ],
)
def test_what_a_note_becomes(note: str, html: str, text: str) -> None:
    assert note_html(note) == html
    assert note_text(note) == text


@pytest.mark.parametrize(
    "note",
    [
        "Read <this> & that.",
        "# Not a heading",
        "Two lines\n---",
        "[x]: https://e.example",
        "AT&amp;T, 5 * 3 * 2, snake_case_name",
        "<b>bold</b><!-- no -->",
    ],
)
def test_what_is_no_markup_of_a_note_stays_as_it_was_typed(note: str) -> None:
    seen = check(note)
    assert seen.words.replace("\n", "") == note.replace("\n", "")
    assert seen.tags <= {"br"}
    assert note_text(note) == note


def test_an_images_address_is_a_link_that_nothing_loads_by_itself() -> None:
    assert check("![tracker](https://e.example/x.gif)").tags == {"a"}


HOSTILE = [
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "<javascript:alert(1)>",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "![x](data:image/svg+xml,<svg onload=alert(1)>)",
    "[x](vbscript:x) [x](//evil.example) [x](/admin/) [x](\\evil)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<a href='https://e.example' onclick='alert(1)'>x</a>",
    '[x](https://e.example "onmouseover=alert(1)")',
    "[a [b](https://e.example)](javascript:alert(1))",
    "[<img src=x onerror=alert(1)>](https://e.example/\"onclick='x')",
    "`<script>`<script>",
    "- > <svg/onload=alert(1)>",
    "\0<scr\0ipt>\0",
]


@pytest.mark.parametrize("note", HOSTILE)
def test_hostile_notes_are_text(note: str) -> None:
    seen = check(note)
    assert all(
        value.startswith("https://e.example")
        for _, name, value in seen.attributes
        if name == "href"
    )


@given(st.text() | st.text(alphabet="[]()<>*_`!>-#&;:/\\\"'\n\t 1.ahtps") | st.binary().map(repr))
def test_whatever_is_typed_the_html_holds_only_what_a_note_may(note: str) -> None:
    check(note)
    note_text(note)


@pytest.mark.parametrize(
    "unit", [">", "[", "![", "(", "*a", "_*", "`", "- ", "1. ", "[a](", "[a](<", "<", "**a*", "\\"]
)
def test_deep_nesting_and_great_length_take_no_long_time(unit: str) -> None:
    begun = time.process_time()
    for note in (unit * MOST, "a" + unit * MOST, unit * 200_000):
        check(note)
        note_text(note)
    assert time.process_time() - begun < 1


def test_a_note_is_rendered_up_to_its_length_and_no_further() -> None:
    assert len(Seen(note_html("a" * 5 * MOST)).words) == MOST


def test_a_hundred_notes_cost_a_day_page_less_than_fifty_milliseconds() -> None:
    notes = [f"Number {n}: *read* the [code](https://e.example/{n}).\n" * 10 for n in range(100)]
    for note in notes:
        note_html(note)
    begun = time.process_time()
    for note in notes:  # of the second reader on
        note_html(note)
    assert time.process_time() - begun < 0.005


@pytest.mark.django_db
def test_the_day_shows_a_note_as_html(client: Client) -> None:
    edition = make_frozen_edition(make_paper())
    edition.candidates.update(note="Read *this* and [that](https://e.example).")
    shown = client.get(edition.get_absolute_url()).content.decode()
    assert "<b>Editors:</b> Read <em>this</em> and <a href=" in shown
