"""The Atom feeds, as a feed reader takes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

import pytest
import time_machine
from defusedxml import ElementTree
from django.http import HttpResponse
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from papers import editions
from papers.ingest import ingest
from papers.models import Edition, EditionPaper, Paper
from papers.sources import PaperRecord
from tests.factories import MORNING, TODAY, make_frozen_edition, make_paper

pytestmark = pytest.mark.django_db

ATOM = "{http://www.w3.org/2005/Atom}"
YESTERDAY = TODAY - timedelta(days=1)
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
DAY_FEED = f"/feeds/papers/{TODAY}.atom"
CATEGORY_FEED = "/feeds/categories/cs.LG.atom"


@pytest.fixture(autouse=True)
def _today() -> object:
    with time_machine.travel(MORNING, tick=False):
        yield


def get(client: Client, path: str, **headers: str) -> HttpResponse:
    return cast(HttpResponse, client.get(path, headers=headers))


def read(client: Client, path: str) -> Element:
    """The feed, once all that RFC 4287 asks of it has been looked at."""
    response = get(client, path)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/atom+xml; charset=utf-8"
    root: Element = ElementTree.fromstring(response.content)
    assert root.tag == f"{ATOM}feed"
    assert_valid(root)
    assert root.find(f"{ATOM}author/{ATOM}name") is not None
    assert link(root, "self") == f"http://testserver{path}"
    ids = [text(entry, "id") for entry in entries(root)]
    assert len(ids) == len(set(ids))
    for entry in entries(root):
        assert_valid(entry)
        assert text(entry, "published") <= text(entry, "updated") <= text(root, "updated")
        for element in entry.findall(f"{ATOM}category"):
            assert element.get("term")
        assert len(entry.findall(f"{ATOM}summary")) == 1
    return root


def assert_valid(element: Element) -> None:
    for name in ("id", "title", "updated"):
        assert len(element.findall(f"{ATOM}{name}")) == 1
    assert INSTANT.fullmatch(text(element, "updated"))
    assert urlsplit(text(element, "id")).scheme in ("urn", "tag")
    links = element.findall(f"{ATOM}link")
    assert len({(each.get("rel"), each.get("type")) for each in links}) == len(links)
    for each in links:
        assert urlsplit(each.get("href", "")).netloc
    assert link(element, "alternate").startswith("http://testserver/")


def text(element: Element, name: str) -> str:
    return element.findtext(f"{ATOM}{name}") or ""


def link(element: Element, rel: str) -> str:
    found = [each for each in element.findall(f"{ATOM}link") if each.get("rel") == rel]
    return found[0].get("href", "") if found else ""


def entries(root: Element) -> list[Element]:
    return root.findall(f"{ATOM}entry")


def titles(root: Element) -> list[str]:
    return [text(entry, "title") for entry in entries(root)]


def test_before_the_first_edition_the_feed_is_valid_and_empty(client: Client) -> None:
    root = read(client, "/feeds/papers.atom")
    assert entries(root) == []
    assert text(root, "updated") == "1970-01-01T00:00:00Z"


def test_the_newest_papers_come_first_and_nothing_open_or_hidden(client: Client) -> None:
    make_frozen_edition(make_paper("Older"), make_paper("Hidden"), day=YESTERDAY)
    EditionPaper.objects.filter(paper__title="Hidden").update(curation="hidden")
    newest = make_frozen_edition(make_paper("Trending"), make_paper("Pinned"), day=TODAY)
    newest.candidates.filter(paper__title="Trending").update(trend=0.9)
    newest.candidates.filter(paper__title="Pinned").update(curation="pinned")
    coming = Edition.objects.create(day=TODAY + timedelta(days=1))
    EditionPaper.objects.create(edition=coming, paper=make_paper("Open"))
    assert titles(read(client, "/feeds/papers.atom")) == ["Pinned", "Trending", "Older"]


def test_a_paper_that_was_listed_twice_is_in_a_feed_once(client: Client) -> None:
    paper = make_paper()
    make_frozen_edition(paper, day=YESTERDAY)
    make_frozen_edition(paper, day=TODAY)
    assert len(entries(read(client, "/feeds/papers.atom"))) == 1


def test_a_days_feed_is_in_the_order_of_its_page(client: Client) -> None:
    make_frozen_edition(make_paper("Other day"), day=YESTERDAY)
    edition = make_frozen_edition(*(make_paper(title) for title in "ABCDE"), day=TODAY)
    curated: dict[str, dict[str, Any]] = {
        "A": {"trend": 0.2},
        "B": {"trend": 0.9},
        "C": {"curation": "pinned", "position": 2},
        "D": {"curation": "hidden", "position": 1, "trend": 1.0},
        "E": {"curation": "pinned", "position": 1},
    }
    for title, fields in curated.items():
        edition.candidates.filter(paper__title=title).update(**fields)
    feed = titles(read(client, DAY_FEED))
    page = client.get(f"/papers/{TODAY}").content.decode()
    assert feed == ["E", "C", "B", "A"]
    assert feed == re.findall(r"<h2><a [^>]*>([^<]*)</a></h2>", page)


def test_the_feed_of_an_empty_day_says_why(client: Client) -> None:
    Edition.objects.create(day=TODAY, state="empty", frozen_at=MORNING, reason="Nothing came.")
    root = read(client, DAY_FEED)
    assert entries(root) == []
    assert text(root, "subtitle") == "Nothing came."


def test_a_categorys_feed_has_its_papers_of_all_days(client: Client) -> None:
    make_frozen_edition(make_paper("First", categories=["cs.CL", "cs.LG"]), day=YESTERDAY)
    make_frozen_edition(
        make_paper("Second", categories=["cs.LG"]),
        make_paper("Elsewhere", categories=["cs.CV"]),
        day=TODAY,
    )
    root = read(client, CATEGORY_FEED)
    assert titles(root) == ["Second", "First"]
    terms = [each.attrib for each in entries(root)[1].findall(f"{ATOM}category")]
    assert terms == [
        {"term": "cs.CL", "label": "Computation and Language"},
        {"term": "cs.LG", "label": "Machine Learning"},
    ]


def test_a_category_of_another_source_has_a_feed_once_it_has_a_paper(client: Client) -> None:
    path = "/feeds/categories/Immunology%20&%20more%25.atom"
    assert get(client, path).status_code == 404
    make_frozen_edition(make_paper("Cells", categories=["Immunology & more%"]), day=TODAY)
    response = get(client, path)
    root = ElementTree.fromstring(response.content)
    assert titles(root) == ["Cells"]
    assert titles(ElementTree.fromstring(get(client, link(root, "self")).content)) == ["Cells"]


@pytest.mark.parametrize(
    "path",
    [
        "/feeds/papers/2026-11-19.atom",
        "/feeds/papers/2026-02-30.atom",
        "/feeds/papers/today.atom",
        "/feeds/categories/cs.XX.atom",
        "/feeds/categories/%00.atom",
        "/feeds/categories/.atom",
        "/feeds/",
    ],
)
def test_an_unknown_feed_is_not_found(client: Client, path: str) -> None:
    Edition.objects.create(day=YESTERDAY)  # open, so nobody's to see
    assert get(client, path).status_code == 404


def test_feeds_are_for_reading_only(client: Client) -> None:
    for path in ("/feeds/papers.atom", CATEGORY_FEED):
        assert client.post(path).status_code == 405
        response = client.head(path)
        assert (response.status_code, response.content) == (200, b"")


def test_an_entry_says_all_that_is_known_and_where_it_comes_from(client: Client) -> None:
    paper = make_paper(
        "Graphs & <trees>",
        abstract="If x < y & z.",
        arxiv_id="2611.00001",
        code_url="https://code.example/x?a=1&b=2",
        licence="http://creativecommons.org/licenses/by/4.0/",
        sources=["arxiv", "huggingface"],
    )
    edition = make_frozen_edition(paper, day=TODAY)
    edition.candidates.update(note="Read <this>.")
    [entry] = entries(read(client, DAY_FEED))
    assert text(entry, "id") == f"urn:uuid:{paper.uuid}"
    assert text(entry, "title") == "Graphs & <trees>"
    names = [name.text for name in entry.findall(f"{ATOM}author/{ATOM}name")]
    assert names == ["Ada Alvarez", "Bo Berg"]
    assert link(entry, "alternate") == f"http://testserver/paper/{paper.uuid}"
    assert link(entry, "via") == "https://arxiv.org/abs/2611.00001"
    assert link(entry, "license") == "http://creativecommons.org/licenses/by/4.0/"
    assert text(entry, "rights").endswith("/by/4.0/")
    summary = text(entry, "summary")
    assert "<p>Editors: Read &lt;this&gt;.</p><p>If x &lt; y &amp; z.</p>" in summary
    assert '<a href="https://code.example/x?a=1&amp;b=2">Code</a>' in summary
    assert "Source: arXiv, Hugging Face Daily Papers." in summary


def test_what_xml_cannot_hold_is_left_out_and_hostile_text_is_text(client: Client) -> None:
    # PostgreSQL takes neither NUL nor surrogates; all else may come.
    bad = "\x01\x0b\x1f\x7f\x85\ufffe\uffff"
    script = f"<script>alert(1)</script>]]>&{bad}"
    paper = make_paper(
        f"A{bad}B",
        abstract=script,
        authors=[f"{bad}", f"Ada{bad}", "  "],
        categories=[bad, f"x{bad}"],
        url="javascript:alert(1)",
        licence=f"http://x.example/{bad}",
        sources=[bad, "file"],
    )
    edition = make_frozen_edition(paper, day=TODAY)
    edition.candidates.update(note=script)
    [entry] = entries(read(client, DAY_FEED))
    assert text(entry, "title") == "AB"
    assert [name.text for name in entry.findall(f"{ATOM}author/{ATOM}name")] == ["Ada"]
    assert "<script" not in text(entry, "summary")
    assert "&lt;script&gt;" in text(entry, "summary")
    assert link(entry, "via") == ""
    assert b"javascript:" not in get(client, DAY_FEED).content
    Paper.objects.update(title=bad)
    assert titles(read(client, DAY_FEED)) == ["(no title)"]


def test_an_entry_of_seven_hundred_authors_names_the_first(client: Client) -> None:
    make_frozen_edition(make_paper(authors=[f"Author {n}" for n in range(700)]), day=TODAY)
    [entry] = entries(read(client, DAY_FEED))
    names = [name.text for name in entry.findall(f"{ATOM}author/{ATOM}name")]
    assert len(names) == 31
    assert names[-1] == "and 670 others"


def test_a_withdrawn_paper_of_an_old_list_says_so(client: Client) -> None:
    make_frozen_edition(make_paper(withdrawn_on=TODAY), day=YESTERDAY)
    [entry] = entries(read(client, f"/feeds/papers/{YESTERDAY}.atom"))
    assert "Withdrawn by its source on 2026-11-20." in text(entry, "summary")


def test_an_entry_is_updated_when_its_paper_changes(client: Client) -> None:
    make_frozen_edition(make_paper("Changed"), make_paper("Same"), day=TODAY)
    later = MORNING + timedelta(hours=1)
    Paper.objects.filter(title="Changed").update(updated_at=later)
    root = read(client, DAY_FEED)
    updated = {text(entry, "title"): text(entry, "updated") for entry in entries(root)}
    assert updated == {"Changed": "2026-11-20T07:00:00Z", "Same": "2026-11-20T06:00:00Z"}
    assert text(root, "updated") == "2026-11-20T07:00:00Z"


def test_a_feed_is_bounded_and_asks_few_questions(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for back in range(2):
        papers = [make_paper(f"{back}, {n}", categories=["cs.LG"]) for n in range(70)]
        make_frozen_edition(*papers, day=TODAY - timedelta(days=back))
    for path, entered in [("/feeds/papers.atom", 100), (CATEGORY_FEED, 100), (DAY_FEED, 70)]:
        with django_assert_num_queries(3):
            assert len(entries(read(client, path))) == entered


@pytest.mark.parametrize("path", ["/feeds/papers.atom", DAY_FEED, CATEGORY_FEED])
def test_what_has_not_changed_is_not_sent_again(
    client: Client, path: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    papers = [make_paper(f"Paper {n}", categories=["cs.LG"]) for n in range(3)]
    make_frozen_edition(*papers, day=TODAY)
    first = get(client, path)
    for headers in (
        {"If-None-Match": first["ETag"]},
        {"If-Modified-Since": first["Last-Modified"]},
        {"If-None-Match": f'"other", {first["ETag"]}', "If-Modified-Since": "nonsense"},
    ):
        with django_assert_num_queries(2):
            again = get(client, path, **headers)
        assert (again.status_code, again.content) == (304, b"")
        assert again["ETag"] == first["ETag"]
        assert again["Cache-Control"] == first["Cache-Control"] == "public, max-age=300"
    assert get(client, path, **{"If-None-Match": 'W/"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/feeds/papers.atom", DAY_FEED, CATEGORY_FEED])
@pytest.mark.parametrize(
    "headers", [{"If-Match": '"x"'}, {"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}]
)
def test_conditions_for_writing_are_not_those_of_a_reader(
    client: Client, path: str, headers: dict[str, str]
) -> None:
    make_frozen_edition(make_paper(categories=["cs.LG"]), day=TODAY)
    answer, plain = get(client, path, **headers), get(client, path)
    assert answer.status_code == 200
    assert (answer.content, answer.headers) == (plain.content, plain.headers)


@pytest.mark.parametrize("path", ["/feeds/papers.atom", DAY_FEED, CATEGORY_FEED])
def test_a_feed_changes_when_an_editor_hides_its_last_paper(client: Client, path: str) -> None:
    edition = make_frozen_edition(make_paper(categories=["cs.LG"]), day=TODAY)
    first = get(client, path)
    with time_machine.travel(MORNING + timedelta(minutes=1), tick=False):
        editions.curate(edition.candidates.get(), EditionPaper.Curation.HIDDEN)
        assert entries(read(client, path)) == []
        for name, known in [("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")]:
            assert get(client, path, **{name: first[known]}).status_code == 200


@pytest.mark.parametrize("path", ["/feeds/papers.atom", DAY_FEED, CATEGORY_FEED])
def test_a_feed_changes_by_an_import_that_began_before_the_last_change(
    client: Client, path: str
) -> None:
    paper = make_paper("As it was", arxiv_id="2611.00001", categories=["cs.LG"])
    make_frozen_edition(paper, make_paper("Another", categories=["cs.LG"]), day=TODAY)
    Paper.objects.update(updated_at=MORNING - timedelta(days=1))
    first = get(client, path)
    told = PaperRecord(
        "arxiv", "As it was, corrected", arxiv_id="2611.00001", categories=("cs.LG",)
    )
    ingest([told], source="test", now=MORNING - timedelta(minutes=10))
    again = get(client, path, **{"If-None-Match": first["ETag"]})
    assert again.status_code == 200
    assert b"As it was, corrected" in again.content
    assert again["ETag"] != first["ETag"]


def test_a_day_that_is_over_may_be_kept_longer_and_no_cookie_matters(client: Client) -> None:
    old = TODAY - timedelta(days=9)
    make_frozen_edition(make_paper(), day=old)
    response = get(client, f"/feeds/papers/{old}.atom")
    assert response["Cache-Control"] == "public, max-age=3600"
    assert "Cookie" not in response.get("Vary", "")
    assert not response.cookies


def test_the_days_page_names_its_feeds(client: Client) -> None:
    make_frozen_edition(make_paper(), day=TODAY)
    body = client.get(f"/papers/{TODAY}").content.decode()
    head = body[: body.index("</head>")]
    named = re.findall(r'type="application/atom\+xml" title="[^"]+" href="([^"]+)"', head)
    assert named == ["/feeds/papers.atom", DAY_FEED]
    for path in named:
        read(client, path)


def test_a_categorys_page_names_its_feed(client: Client) -> None:
    make_frozen_edition(make_paper(categories=["cs.LG", "a/b"]), day=TODAY)
    for code in ("cs.LG", "a/b"):
        body = client.get(f"/categories/{code}").content.decode()
        named = f"/feeds/categories/{code}.atom"
        assert f'href="{named}"' in body[: body.index("</head>")]
        assert len(entries(read(client, named))) == 1


def test_dates_are_told_in_utc(client: Client) -> None:
    paper = make_paper()
    edition = make_frozen_edition(paper, day=TODAY)
    Edition.objects.filter(pk=edition.pk).update(frozen_at=datetime(2026, 11, 20, 4, tzinfo=UTC))
    Paper.objects.update(updated_at=datetime(2026, 11, 19, tzinfo=UTC))
    [entry] = entries(read(client, DAY_FEED))
    assert text(entry, "published") == text(entry, "updated") == "2026-11-20T04:00:00Z"
